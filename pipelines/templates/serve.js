// The page of `emocache serve`: sends a picture, or opens a person of the cache, shows who is there,
// asks what if. Whatever comes from outside is put on the page as text alone.

const ROWS = 8; // emotions shown of a person before all are asked for
const EDGES = 6; // edges of a label shown, the strongest
const WORDS = { head: "face", objects: "all objects" };
const SVG = "http://www.w3.org/2000/svg";

const about = await (await fetch("/api/about")).json();
const at = (id) => document.getElementById(id);
const cached = { open: null, split: "", rows: [] }; // the person that is shown, and whom it is among
let sending = 0; // what was asked for last: answers to earlier questions come too late

describe();
listen();
if (about.no_persons) {
  at("no-persons").textContent = `Persons of the cache are not shown: ${about.no_persons}.`;
  at("no-persons").hidden = false;
} else leafThrough();

function describe() {
  at("where").textContent =
    `${about.head}, fitted on ${about.dataset}: ${about.labels.length - about.not_learned.length} labels`;
  const warnings = [
    ...(about.note ? [["Data.", ` ${about.note}.`]] : []),
    ...about.untrained.map((network) => [
      "UNTRAINED", ` ${network} runs on random weights: its features carry no learned meaning.`,
    ]),
  ];
  for (const [first, rest] of warnings) {
    at("warnings").append(element("p", { class: "banner", role: "note" }, element("b", {}, first), rest));
  }
  at("warnings").append(element("p", { class: "caution", id: "caution" }, `${about.caution}.`));
  at("limits").textContent =
    `up to ${about.limits.upload_mb} MB and ${Math.round(about.limits.pixels / 1e6)} megapixels`;
  for (const line of about.weights) at("weights").append(element("li", {}, line));
  for (const line of about.differs) at("weights").append(element("li", {}, `other than the head was fitted with: ${line}`));
}

function listen() {
  const drop = at("drop");
  at("file").addEventListener("change", () => {
    if (at("file").files.length) send(at("file").files[0]);
    at("file").value = ""; // the same picture may be chosen again
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const files = event.dataTransfer.files;
    if (files.length === 1) send(files[0]);
    else say(files.length ? "drop one picture at a time" : "this is not a file", true);
  });
}

async function send(file) {
  const number = ++sending;
  leave();
  if (file.size > about.limits.upload_mb * 1e6) {
    say(`${file.name} is larger than ${about.limits.upload_mb} MB`, true);
    return;
  }
  say(`looking at ${file.name} …`);
  const form = new FormData();
  form.append("show", "plain");
  form.append("picture", file);
  const [found, wrong] = await ask("/api/predict", { method: "POST", body: form });
  if (number !== sending) return;
  if (wrong) {
    at("result").hidden = true;
    say(wrong, true);
    return;
  }
  const count = found.people.length;
  const more = found.left_out ? `, and ${found.left_out} more, who are left out` : "";
  say(count ? `${count} ${count === 1 ? "person" : "people"}${more}` : found.reason);
  show(found);
}

// ---- persons of the cache

function leafThrough() {
  at("cached").hidden = false;
  for (const [split, count] of Object.entries(about.splits)) {
    at("split").append(element("option", { value: split }, `${split} (${count})`));
  }
  at("split").value = "test" in about.splits ? "test" : Object.keys(about.splits)[0];
  at("cached").addEventListener("submit", (event) => {
    event.preventDefault();
    open(at("row").value.trim());
  });
  at("split").addEventListener("change", async () => {
    if (await among(at("split").value)) open(cached.rows[0]);
  });
  for (const [id, by] of [["previous", -1], ["next", 1]]) {
    at(id).addEventListener("click", async () => {
      if (!(await among(at("split").value))) return;
      const here = cached.rows.indexOf(cached.open);
      const last = cached.rows.length - 1;
      open(cached.rows[here < 0 ? (by > 0 ? 0 : last) : Math.min(Math.max(here + by, 0), last)]);
    });
  }
  addEventListener("hashchange", linked);
  linked();
}

// The address may name a person: /#person=41.
function linked() {
  const row = new URLSearchParams(location.hash.slice(1)).get("person");
  if (row !== null && row !== String(cached.open)) open(row);
}

// Whether the rows of that split are at hand.
async function among(split) {
  if (cached.split === split) return true;
  const [answer, wrong] = await ask(`/api/persons?${new URLSearchParams({ split })}`);
  if (wrong) say(wrong, true);
  else Object.assign(cached, { split, rows: answer.rows });
  return !wrong;
}

async function open(row) {
  const number = ++sending;
  const [found, wrong] = /^\d+$/.test(row)
    ? await ask(`/api/persons/${row}?show=plain`)
    : [null, "a row is a whole number, from 0"];
  if (number !== sending) return;
  if (wrong) {
    cached.open = null;
    at("result").hidden = true;
    say(wrong, true);
    return;
  }
  cached.open = found.row;
  at("row").value = found.row;
  at("split").value = found.split;
  history.replaceState(null, "", `#person=${found.row}`);
  show(found);
  const placed = await among(found.split);
  if (number !== sending || !placed) return;
  const place = cached.rows.indexOf(found.row);
  at("previous").disabled = place <= 0;
  at("next").disabled = place === cached.rows.length - 1;
  say(`person ${found.row}, ${place + 1} of ${cached.rows.length} in ${found.split}` +
    (found.split === "train" ? ": the head was fitted on this person" : ""));
}

// A picture that is sent is no person of the cache.
function leave() {
  cached.open = null;
  at("row").value = "";
  for (const id of ["previous", "next"]) at(id).disabled = false;
  if (location.hash) history.replaceState(null, "", location.pathname);
}

// [answer, ""] or [null, why not].
async function ask(address, options) {
  try {
    const response = await fetch(address, options);
    const answer = await response.json();
    return response.ok ? [answer, ""] : [null, answer.detail];
  } catch {
    return [null, "the server does not answer: does it still run?"];
  }
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

// ---- a picture

function show(found) {
  const known = "row" in found; // a person of the cache
  const marks = drawing("svg", { viewBox: `0 0 ${found.width} ${found.height}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" });
  const people = found.people.map((person, number) => {
    const colour = about.colours[number % about.colours.length];
    const objects = person.objects.map((thing) =>
      drawing("g", { class: "thing" }, box(thing.box, "object-rim"), box(thing.box, "object")));
    const group = drawing("g", { class: "person" }, ...objects,
      box(person.box, "rim"), box(person.box, "line", colour),
      ...(person.head ? [box(person.head, "face", colour)] : []));
    const more = known ? { name: `person ${found.row}`, truth: found.true, shares: found.shares } : { name: `person ${number + 1}` };
    return { ...person, ...more, number, colour, group, marks: objects, token: found.token };
  });
  for (const person of people) marks.append(person.group);
  const alt = `${found.picture}, with ${known ? people[0].name : `${people.length} people`} marked`;
  const picture = found.shown ? [element("img", { src: found.shown, alt, width: found.width, height: found.height })] : [];
  at("frame").classList.toggle("empty", !found.shown);
  at("frame").replaceChildren(...picture, marks);
  at("caption").textContent = `${found.picture}, ${found.width} × ${found.height} pixels${found.no_picture ? `; ${found.no_picture}` : ""}`;
  const cards = people.map((person) => card(person, () => choose(person)));
  function choose(chosen) {
    people.forEach((person, i) => {
      person.group.classList.toggle("on", person === chosen);
      cards[i].classList.toggle("on", person === chosen);
    });
    marks.append(chosen.group); // above the others
  }
  at("people").replaceChildren(...cards);
  at("result").hidden = false;
  if (people.length) choose(people[0]);
}

function box([x1, y1, x2, y2], name, colour) {
  return drawing("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: name, ...(colour ? { stroke: colour } : {}) });
}

// ---- a person

function card(person, choose) {
  const chip = drawing("svg", { class: "chip", "aria-hidden": "true" }, drawing("rect", { width: "100%", height: "100%", fill: person.colour }));
  const face = about.views.includes("head") ? (person.head ? "face found" : "no face found") : "";
  const scores = bars(person.emotions, person.truth, person.shares);
  const all = element("section", { class: "card", "aria-label": person.name },
    element("h2", {}, chip, person.name, element("small", {}, face)));
  if (person.truth && !person.shares) {
    all.append(element("p", { class: "true-labels" }, element("b", {}, "✓ true: "), person.truth.join(", ") || "none"));
  }
  all.append(scores.element, about.no_what_if ? seenOnly(person) : whatIf(person, scores));
  for (const name of ["pointerenter", "focusin"]) all.addEventListener(name, choose);
  return all;
}

// The scores as bars, which `move` moves to other scores of the same labels. truth: labels that the
// person has; shares: the true ones, where labels are distributions.
function bars(emotions, truth = [], shares = null) {
  const labels = Object.keys(emotions);
  const values = Object.values(emotions);
  const every = [...values, ...Object.values(shares ?? {})];
  const chances = every.every((value) => value >= 0 && value <= 1);
  const low = chances ? 0 : Math.min(0, ...every);
  const high = chances ? 1 : Math.max(...every, low + 1e-6);
  const place = (value) => `${(100 * Math.min(Math.max((value - low) / (high - low), 0), 1)).toFixed(2)}%`;
  const decided = labels.some((label) => label in about.thresholds);
  const rows = labels.map((label, i) => {
    const bar = drawing("rect", { class: "bar", y: 4, height: 13, width: place(values[i]) });
    const before = drawing("line", { class: "before", y1: 1, y2: 20, x1: place(values[i]), x2: place(values[i]), visibility: "hidden" });
    const limit = about.thresholds[label];
    const chart = drawing("svg", { "aria-hidden": "true" },
      drawing("rect", { class: "track", y: 10, height: 1, width: "100%" }), bar,
      ...(limit === undefined ? [] : [drawing("line", { class: "limit", y1: 2, y2: 19, x1: place(limit), x2: place(limit) })]),
      ...(shares ? [drawing("line", { class: "share", y1: 2, y2: 19, x1: place(shares[label]), x2: place(shares[label]) })] : []),
      before);
    const isTrue = !shares && truth.includes(label);
    const named = element("span", { class: "label" }, label);
    if (isTrue) named.append(element("span", { class: "true", role: "img", "aria-label": "true", title: "the person has this label" }, "✓"));
    const number = element("span", { class: "n" }, values[i].toFixed(2));
    const change = element("span", { class: "n change" });
    const row = element("div", { class: "score", "data-label": label }, named, chart, number, change);
    row.classList.toggle("above", values[i] >= limit);
    const first = i < ROWS || isTrue;
    row.hidden = !first;
    return { row, bar, before, number, change, limit, first };
  });
  const list = element("div", { class: `scores${decided ? " decided" : ""}` }, ...rows.map((one) => one.row));
  const key = element("p", { class: "key" });
  if (decided) key.append(element("span", {}, sign("limit"), "threshold, from val"));
  if (shares) key.append(element("span", {}, sign("share"), "true share"));
  const kept = element("span", { hidden: "" }, sign("before"), "with everything");
  key.append(kept);
  const whole = element("div", {}, list, key);
  if (rows.some((one) => !one.first)) {
    const button = element("button", { type: "button", "aria-expanded": "false" }, `all ${labels.length} labels`);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "false";
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? `the first ${ROWS} labels` : `all ${labels.length} labels`;
      for (const one of rows) one.row.hidden = !open && !one.first;
    });
    whole.append(button);
  }
  function move(scores) {
    const moved = scores !== emotions;
    kept.hidden = !moved;
    labels.forEach((label, i) => {
      const { row, bar, before, number, change, limit } = rows[i];
      const value = scores[label];
      bar.setAttribute("width", place(value));
      number.textContent = value.toFixed(2);
      row.classList.toggle("above", value >= limit);
      const by = value - emotions[label];
      before.setAttribute("visibility", moved ? "visible" : "hidden");
      const shown = moved && Math.abs(by) >= 0.005;
      change.textContent = shown ? `${by > 0 ? "+" : "−"}${Math.abs(by).toFixed(2)}` : "";
      change.className = `n change${shown ? (by > 0 ? " up" : " down") : ""}`;
    });
  }
  return { element: whole, move, labels };
}

function sign(name) {
  return drawing("svg", { "aria-hidden": "true" }, drawing("line", { class: name, x1: 7, x2: 7, y1: 0, y2: 12 }));
}

// ---- what if

// The objects of a head of which nothing can be taken away.
function seenOnly(person) {
  const said = element("p", { class: "what-if-not" }, `${about.no_what_if[0].toUpperCase()}${about.no_what_if.slice(1)}.`);
  if (!person.objects.length) return said;
  const objects = person.objects.map((thing) => element("li", {}, thing.name, " ", element("span", { class: "weight" }, weightOf(thing))));
  return element("div", {}, element("h3", { class: "seen-title" }, "objects"), element("ul", { class: "seen-objects" }, ...objects), said);
}

function weightOf(thing) {
  return thing.weight === null ? "" : `weight ${thing.weight.toFixed(2)}`;
}

function whatIf(person, scores) {
  const without = { views: new Set(), objects: new Set(), edges: new Map() };
  const said = element("span", { role: "status", class: "soft" });
  const reset = element("button", { type: "button", disabled: "" }, "everything back");
  const whole = element("details", { class: "what-if", ...(person.number ? {} : { open: "" }) },
    element("summary", {}, "What if the head had not seen …"));
  let number = 0;

  async function changed() {
    const mine = ++number;
    const gone = [...without.views, ...without.objects, ...without.edges.values()];
    reset.disabled = gone.length === 0;
    person.marks.forEach((mark, i) => mark.classList.toggle("gone", without.objects.has(i) || without.views.has("objects")));
    if (!gone.length) {
      said.textContent = "";
      scores.move(person.emotions);
      return;
    }
    const question = {
      token: person.token, person: person.number, views: [...without.views],
      objects: [...without.objects], edges: [...without.edges.values()],
    };
    const [answer, wrong] = await ask("/api/what-if", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question),
    });
    if (mine !== number) return;
    said.textContent = wrong;
    if (answer) scores.move(answer.without);
  }

  function check(text, weight, gone, key, value) {
    const input = element("input", { type: "checkbox", "data-takes": `${value}` });
    input.checked = !gone.has(key);
    input.addEventListener("change", () => {
      if (input.checked) gone.delete(key);
      else if (gone instanceof Map) gone.set(key, value);
      else gone.add(key);
      changed();
    });
    return element("label", { class: "check" }, input, element("span", {}, text), ...(weight ? [element("span", { class: "weight" }, weight)] : []));
  }

  function draw() {
    const parts = [];
    if (about.removable.length) {
      const views = about.removable.map((view) => check(WORDS[view] ?? view, "", without.views, view, view));
      parts.push(element("fieldset", { class: "views" }, element("legend", {}, "views"), element("div", { class: "checks" }, ...views)));
    }
    if (person.objects.length) {
      const objects = person.objects.map((thing, i) => {
        const row = check(thing.name, weightOf(thing), without.objects, i, i);
        row.addEventListener("pointerenter", () => person.marks[i].classList.add("on"));
        row.addEventListener("pointerleave", () => person.marks[i].classList.remove("on"));
        return row;
      });
      parts.push(element("fieldset", { class: "objects" }, element("legend", {}, "objects"), element("div", { class: "checks stacked" }, ...objects)));
    }
    if (about.edges.length) parts.push(edges());
    return parts;
  }

  function edges() {
    const list = element("div", { class: "checks" });
    const select = element("select", { "aria-label": "label whose edges are shown" });
    for (const label of scores.labels) select.append(element("option", { value: label }, label));
    const fill = () => {
      const some = about.edges.filter((edge) => edge.includes(select.value)).slice(0, EDGES);
      const rows = some.map(([a, b]) => check(a === select.value ? b : a, "", without.edges, `${a}\n${b}`, [a, b]));
      list.replaceChildren(...(rows.length ? rows : [element("span", { class: "soft" }, "none")]));
    };
    select.addEventListener("change", fill);
    fill();
    return element("fieldset", { class: "edges" }, element("legend", {}, "that ", select, " goes with"), list);
  }

  const controls = element("div", {}, ...draw());
  reset.addEventListener("click", () => {
    for (const one of Object.values(without)) one.clear();
    controls.replaceChildren(...draw());
    changed();
  });
  whole.append(controls, element("p", { class: "foot" }, reset, said));
  return whole;
}

// ---- elements

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // texts become text nodes: nothing is parsed
  return made;
}
