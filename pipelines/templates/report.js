// Everybody who was measured: found by label, answer, note and words, listed by tiles of which only
// those in sight are made, and looked at one by one. All of it works on what the page holds, and
// texts enter it as text nodes alone. `at` is a person's place in the columns, a position one in
// the list.
(() => {
  "use strict";

  // ---- What the page holds

  const TYPES = { f4: Float32Array, i4: Int32Array, u2: Uint16Array, u1: Uint8Array };
  const FULL = 65535; // what boxes, scores and weights of objects are counted in
  const TRUE = 1,
    PREDICTED = 2,
    HIT = 3; // of `marks`
  const KINDS = ["neither", "missed", "wrong", "hit"]; // by mark
  const SAID = {
    hit: "true and predicted",
    missed: "true, not predicted",
    wrong: "predicted, not true",
    neither: "neither true nor predicted",
  };

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("everybody-data").textContent);
  const thumbnails = byId("everybody-thumbnails").textContent.split("\n");
  const columns = Object.fromEntries(
    Object.entries(data.columns).map(([name, [type, text]]) => [name, decoded(type, text)]),
  );
  const count = columns.rows.length;
  const width = data.labels.length;
  const shares = data.kind === "distribution";
  const places = Uint32Array.from({ length: count }, (_, at) => at);
  const words = Array.from(places, (at) => `${columns.rows[at]} ${placeOf(at)}`.toLowerCase());
  const anyMark = Uint8Array.from(places, (at) =>
    marksOf(at).reduce((seen, m) => seen | (1 << m), 0),
  );

  function decoded(type, text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
    return new TYPES[type](bytes.buffer);
  }

  function placeOf(at) {
    return data.places[columns.place[at]];
  }

  function marksOf(at) {
    return columns.marks.subarray(at * width, (at + 1) * width);
  }

  function score(at, label) {
    return columns.scores[at * width + label];
  }

  function name(at) {
    return `${data.one} ${columns.rows[at]}`;
  }

  function measure(at) {
    return `${data.measure.name} ${number(columns.measure[at], data.measure.digits)}`;
  }

  function notesOf(at) {
    return data.notes.filter((_, note) => columns.noted[at] & (1 << note));
  }

  function labelsOf(at, mark) {
    return data.labels.filter((_, label) => marksOf(at)[label] === mark);
  }

  function number(value, digits = 2) {
    return Number.isFinite(value) ? value.toFixed(digits) : "–";
  }

  function thousands(value) {
    return value.toLocaleString("en-US");
  }

  // ---- What is asked for, which the address keeps

  const NOTHING = { sort: "worst", label: "", error: "", note: "", find: "", open: "" };
  const HERE = "#everybody";
  const state = { ...NOTHING };
  const controls = ["sort", "label", "error", "note", "find"];

  function sorts() {
    const { name, more } = data.measure;
    const [worst, best] = more ? ["lowest", "highest"] : ["highest", "lowest"];
    const found = [
      ["worst", `${name}, ${worst} first`],
      ["best", `${name}, ${best} first`],
      ["row", "row"],
    ];
    if (!state.label) return found;
    const of = `${data.score} of ${state.label}`;
    return [...found, ["high", `${of}, highest first`], ["low", `${of}, lowest first`]];
  }

  function errors() {
    if (state.label) {
      const largest = shares ? "largest share " : "";
      return [
        ["", `${largest}true or predicted`],
        ["hit", largest + SAID.hit],
        ["missed", largest + SAID.missed],
        ["wrong", largest + SAID.wrong],
        ["true", `${largest}true`],
        ["predicted", `${largest}predicted`],
        ["all", "any"],
      ];
    }
    if (data.kind !== "multi") {
      const right = shares ? ["same largest share", "another largest share"] : ["right", "wrong"];
      return [
        ["", "any"],
        ["right", right[0]],
        ["wrong", right[1]],
      ];
    }
    return [
      ["", "any"],
      ["right", "every label right"],
      ["hit", "some label hit"],
      ["missed", "some label missed"],
      ["wrong", "some label wrong"],
    ];
  }

  // Labels that somebody has, or may be said to have.
  const findable = data.labels.filter(
    (_, label) => data.learned[label] || places.some((at) => marksOf(at)[label]),
  );

  function choices() {
    return {
      sort: sorts(),
      label: [["", "any"], ...findable.map((label) => [label, label])],
      error: errors(),
      note: [["", "any"], ...data.notes.map((note) => [note, note])],
    };
  }

  // What cannot be, such as a score's order without its label, gives way to the first choice.
  function settle() {
    for (const key of ["label", "note", "sort", "error"]) {
      const offered = choices()[key].map(([value]) => value);
      if (!offered.includes(state[key])) state[key] = offered[0];
    }
  }

  function readAddress() {
    const hash = location.hash;
    if (!hash.startsWith(`${HERE}?`)) return false; // a link to the section changes nothing
    const asked = new URLSearchParams(hash.slice(HERE.length + 1));
    for (const key of Object.keys(NOTHING)) state[key] = asked.get(key) ?? NOTHING[key];
    settle();
    return true;
  }

  function writeAddress() {
    const asked = Object.entries(state).filter(([key, value]) => value !== NOTHING[key]);
    const query = new URLSearchParams(asked).toString();
    history.replaceState(null, "", query ? `${HERE}?${query}` : HERE);
  }

  // ---- Who is found, in which order

  function found() {
    const label = data.labels.indexOf(state.label);
    const note = 1 << data.notes.indexOf(state.note);
    const text = state.find.trim().toLowerCase();
    const kept = places.filter(
      (at) =>
        answers(at, label) &&
        (!state.note || columns.noted[at] & note) &&
        (!text || words[at].includes(text)),
    );
    const [key, sign] = order(label);
    // What is not a number comes last; of equal ones the first.
    const value = (at) => (Number.isNaN(key(at)) ? Infinity : sign * key(at));
    return kept.sort((a, b) => value(a) - value(b) || a - b);
  }

  function answers(at, label) {
    if (label < 0) {
      const seen = anyMark[at];
      if (state.error === "right") return !(seen & ((1 << TRUE) | (1 << PREDICTED)));
      return !state.error || seen & (1 << KINDS.indexOf(state.error));
    }
    const mark = marksOf(at)[label];
    if (state.error === "all") return true;
    if (state.error === "true") return mark & TRUE;
    if (state.error === "predicted") return mark & PREDICTED;
    return state.error ? mark === KINDS.indexOf(state.error) : mark;
  }

  function order(label) {
    const worst = data.measure.more ? 1 : -1;
    return {
      worst: [(at) => columns.measure[at], worst],
      best: [(at) => columns.measure[at], -worst],
      row: [(at) => columns.rows[at], 1],
      high: [(at) => score(at, label), -1],
      low: [(at) => score(at, label), 1],
    }[state.sort];
  }

  // ---- The list

  const GAP = 10; // between tiles, in pixels
  const LEAST = { phone: 160, desk: 200 }; // a tile's width
  const TOLD = 6; // labels on a tile
  const box = byId("list");
  const list = box.querySelector("ul");
  const made = new Map(); // position -> its tile
  let people = places; // who is listed
  let current = 0; // the position that has the focus, or would get it
  let grid = { room: 0, columns: 1, wide: 0, high: 0 }; // pixels, but for the columns

  function layOut() {
    const high = parseFloat(getComputedStyle(box).getPropertyValue("--tile"));
    const room = box.clientWidth;
    const least = room < 560 ? LEAST.phone : LEAST.desk;
    const across = Math.max(1, Math.floor((room + GAP) / (least + GAP)));
    const wide = (room - GAP * (across - 1)) / across;
    grid = { room, columns: across, wide, high: high + GAP };
    const rows = Math.ceil(people.length / across);
    const focused = list.contains(document.activeElement);
    list.style.height = `${Math.max(0, rows * grid.high - GAP)}px`;
    list.replaceChildren();
    made.clear();
    paint();
    if (focused && people.length) go(current).focus({ preventScroll: true });
  }

  // Makes the tiles in sight, a row more on each side, and the one with the focus; drops others.
  function paint() {
    const above = Math.floor(box.scrollTop / grid.high) - 1;
    const below = Math.ceil((box.scrollTop + box.clientHeight) / grid.high) + 1;
    const from = Math.max(0, above * grid.columns);
    const to = Math.min(people.length, below * grid.columns);
    const wanted = new Set(people.length ? [current] : []);
    for (let position = from; position < to; position++) wanted.add(position);
    for (const [position, item] of made) {
      if (!wanted.has(position)) {
        item.remove();
        made.delete(position);
      }
    }
    let next = null; // nothing moves in the document, so that the focus stays where it is
    for (const position of [...wanted].sort((a, b) => b - a)) {
      if (!made.has(position)) {
        made.set(position, item(position));
        list.insertBefore(made.get(position), next);
      }
      next = made.get(position);
    }
  }

  function item(position) {
    const row = Math.floor(position / grid.columns);
    const column = position % grid.columns;
    const item = make(
      "li",
      { "aria-setsize": people.length, "aria-posinset": position + 1 },
      tile(people[position], position),
    );
    item.style.width = `${grid.wide}px`;
    item.style.transform = `translate(${column * (grid.wide + GAP)}px, ${row * grid.high}px)`;
    return item;
  }

  function tile(at, position) {
    const button = make(
      "button",
      {
        type: "button",
        class: "tile",
        tabindex: position === current ? 0 : -1,
        "aria-label": inWords(at),
        "aria-haspopup": "dialog",
      },
      seen(at, false),
      make("span", { class: "top" }, make("b", {}, name(at)), make("span", {}, ...verdict(at))),
      make("span", { class: "marks" }, ...told(at)),
    );
    button.addEventListener("click", () => show(position));
    return button;
  }

  function verdict(at) {
    if (data.kind === "single") return [anyMark[at] & (1 << HIT) ? "right" : "wrong"];
    const value = number(columns.measure[at], data.measure.digits);
    return [make("span", { class: "word" }, `${data.measure.name} `), value];
  }

  // Labels of a tile, each with its mark: the one that is asked for with its score, those hit, ...
  function told(at) {
    const asked = data.labels.indexOf(state.label);
    const every = [HIT, TRUE, PREDICTED].flatMap((mark) =>
      labelsOf(at, mark)
        .filter((label) => label !== state.label)
        .map((label) => marked(KINDS[mark], label)),
    );
    if (asked >= 0) {
      const first = marked(KINDS[marksOf(at)[asked]], `${state.label} ${number(score(at, asked))}`);
      first.classList.add("asked");
      every.unshift(first);
    }
    const more = every.length - TOLD;
    if (more <= 0) return every;
    return [...every.slice(0, TOLD), make("span", { class: "soft" }, `+${more}`)];
  }

  function marked(kind, text) {
    return make("span", { class: kind }, sign(kind), make("span", { class: "label" }, text));
  }

  function inWords(at) {
    const said = [HIT, TRUE, PREDICTED]
      .map((mark) => [SAID[KINDS[mark]], labelsOf(at, mark)])
      .filter(([, labels]) => labels.length)
      .map(([kind, labels]) => `${kind}: ${labels.join(", ")}`);
    return [`${name(at)}, ${measure(at)}`, ...said, ...notesOf(at)].join("; ");
  }

  function go(position) {
    const before = made.get(current);
    if (before) before.firstChild.tabIndex = -1;
    current = Math.min(Math.max(position, 0), people.length - 1);
    const top = Math.floor(current / grid.columns) * grid.high;
    if (top < box.scrollTop) box.scrollTop = top;
    const bottom = top + grid.high - GAP - box.clientHeight;
    if (bottom > box.scrollTop) box.scrollTop = bottom;
    paint();
    const button = made.get(current).firstChild;
    button.tabIndex = 0;
    return button;
  }

  function steer(event) {
    if (!event.target.matches(".tile") || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = grid.columns * Math.max(1, Math.floor(box.clientHeight / grid.high));
    const step = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: grid.columns,
      ArrowUp: -grid.columns,
      PageDown: page,
      PageUp: -page,
      Home: -current,
      End: people.length - 1 - current,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const wished = current + step;
    // Up from the first row and down from the last stay where they are.
    const inside = wished >= 0 && wished < people.length;
    if (inside || event.key.startsWith("Page")) go(wished).focus({ preventScroll: true });
  }

  // ---- The card of one person

  const card = byId("person");
  const OBJECTS = 12; // named in the picture, the heaviest

  function show(position) {
    const at = people[position];
    go(position);
    fill(at, `${thousands(position + 1)} of ${thousands(people.length)}`);
    byId("before").setAttribute("aria-disabled", position === 0);
    byId("after").setAttribute("aria-disabled", position === people.length - 1);
    state.open = String(columns.rows[at]);
    writeAddress();
    if (!card.open) card.showModal();
    card.scrollTop = 0;
  }

  function fill(at, where) {
    byId("person-name").replaceChildren(name(at), make("small", {}, where));
    byId("person-seen").replaceChildren(
      seen(at, true),
      ...(columns.boxes ? [make("p", { class: "place" }, placeOf(at))] : []),
      ...objectsOf(at),
      ...depthOf(at),
    );
    const notes = notesOf(at);
    const rows = make("div", {}, ...rowsOf(at));
    byId("person-answer").replaceChildren(
      make("p", { class: "top" }, make("b", {}, answer(at))),
      ...(notes.length ? [make("p", { class: "hint" }, notes.join(" · "))] : []),
      key(),
      rows,
      ...whatIf(at, (other) => rows.replaceChildren(...rowsOf(at, other))),
    );
  }

  // The labels of a person; other: their scores with something taken away.
  function rowsOf(at, other = null) {
    return shares ? shareRows(at, other) : labelRows(at, other);
  }

  function step(by) {
    const position = current + by;
    if (position >= 0 && position < people.length) show(position);
  }

  function closed() {
    state.open = "";
    writeAddress();
    if (people.length) go(current).focus({ preventScroll: true });
  }

  function answer(at) {
    if (shares) return measure(at);
    if (data.kind === "single") {
      const right = anyMark[at] & (1 << HIT);
      const chosen = [...labelsOf(at, HIT), ...labelsOf(at, PREDICTED)].join(", ");
      return `${right ? "right" : "wrong"}: predicted ${chosen}`;
    }
    const [hits, missed, wrong] = [HIT, TRUE, PREDICTED].map((mark) => labelsOf(at, mark).length);
    const said = `${hits} of ${hits + missed} true labels among ${hits + wrong} predicted`;
    return `${measure(at)}: ${said}`;
  }

  function key() {
    if (shares) {
      return make(
        "p",
        { class: "key" },
        ...["true", "predicted"].map((side) =>
          make(
            "span",
            {},
            make(
              "svg",
              { width: 22, height: 11, "aria-hidden": "true" },
              make("rect", { y: 2, width: 22, height: 6, class: `${side}-share` }),
            ),
            `${side} share`,
          ),
        ),
      );
    }
    const kinds = ["hit", "missed", "wrong"];
    const spans = kinds.map((kind) =>
      make("span", {}, make("span", { class: kind }, sign(kind)), SAID[kind]),
    );
    if (data.thresholds.some((one) => one !== null) && data.kind === "multi") {
      const line = make("line", { x1: 3, x2: 3, y1: 0, y2: 11, class: "limit" });
      spans.push(
        make(
          "span",
          {},
          make("svg", { width: 6, height: 11, "aria-hidden": "true" }, line),
          "threshold from val",
        ),
      );
    }
    return make("p", { class: "key" }, ...spans);
  }

  function labelRows(at, other) {
    const marks = other ? decided(at, other) : marksOf(at);
    const ranked = data.labels
      .map((_, label) => label)
      .filter((label) => data.learned[label] || marksOf(at)[label] & TRUE)
      .sort((a, b) => score(at, b) - score(at, a));
    const rows = ranked.map((label) => {
      const kind = KINDS[marks[label]];
      const value = other ? other[label] : score(at, label);
      const bar = [
        make("rect", { class: "track", y: 9, width: "100%", height: 1 }),
        make("rect", { class: "score", y: 6, height: 7, width: along(value) }),
        ...before(at, label, other, 3, 16),
      ];
      let said = SAID[kind];
      const threshold = data.thresholds[label];
      if (data.kind === "multi" && threshold !== null) {
        const x = along(threshold);
        bar.push(make("line", { class: "limit", x1: x, x2: x, y1: 3, y2: 16 }));
        said += `, threshold ${number(threshold)}`;
      }
      return make(
        "div",
        { class: `label-row ${kind}${other ? " moved" : ""}`, title: said },
        sign(kind),
        make("span", { class: "label" }, data.labels[label]),
        make("svg", { role: "img", "aria-label": said }, ...bar),
        make("span", { class: "n" }, number(value)),
        ...change(at, label, other),
      );
    });
    const unknown = data.learned.filter((known) => !known).length;
    const text = `${unknown} label${unknown > 1 ? "s" : ""} that no training ${data.one} had: left out, unless true.`;
    return unknown ? [...rows, make("p", { class: "hint" }, text)] : rows;
  }

  function shareRows(at, other) {
    const share = (label) => columns.shares[at * width + label];
    const ranked = data.labels.map((_, label) => label);
    ranked.sort((a, b) => share(b) - share(a) || score(at, b) - score(at, a));
    const heads = ["", "", "true", "predicted", ...(other ? [""] : [])];
    const head = heads.map((text, n) => make("span", n > 1 ? { class: "n" } : {}, text));
    const kind = `label-row paired${other ? " moved" : ""}`;
    const value = (label) => (other ? other[label] : score(at, label));
    const rows = ranked.map((label) =>
      make(
        "div",
        { class: kind },
        make("span", { class: "label" }, data.labels[label]),
        make(
          "svg",
          { "aria-hidden": "true" },
          make("rect", { class: "track", y: 9, width: "100%", height: 1 }),
          make("rect", { class: "true-share", y: 3, height: 6, width: along(share(label)) }),
          make("rect", {
            class: "predicted-share",
            y: 10,
            height: 6,
            width: along(value(label)),
          }),
          ...before(at, label, other, 9, 17),
        ),
        make("span", { class: "n" }, number(share(label))),
        make("span", { class: "n" }, number(value(label))),
        ...change(at, label, other),
      ),
    );
    return [make("div", { class: `${kind} soft` }, ...head), ...rows];
  }

  // How far along its bar a score reaches.
  function along(value) {
    const [low, high] = data.scale;
    return `${100 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1)}%`;
  }

  // ---- What if the head had not seen something

  let taken = ""; // the view taken away last, which is taken from the next one too

  // A choice of what is taken away; `move` is given the scores without it, or null.
  function whatIf(at, move) {
    if (!data.whatIf) return [];
    if (columns.asked[at] < 0) {
      const some = `the ${thousands(data.whatIf.persons)} ${data.many} with the worst answers`;
      const text = `What if is worked out here for ${some} (report.what_if).`;
      return [make("p", { class: "hint" }, `${text} ${served(at)}`)];
    }
    const said = make("p", { class: "hint", role: "status" });
    const offered = removable(at);
    const kept = offered.find(({ view }) => view && view === taken); // of the one before
    const choices = offered.map((choice) => {
      const { text, weight, values } = choice;
      const input = make("input", { type: "radio", name: "taken" });
      input.checked = choice === (kept ?? offered[0]);
      const take = () => {
        const other = values && Float32Array.from(values, unpacked);
        taken = choice.view ?? "";
        move(other);
        said.textContent = other ? `${moved(at, other)} Dotted: with everything.` : "";
      };
      input.addEventListener("change", take);
      if (choice === kept) take();
      const more = weight ? [make("span", { class: "soft" }, weight)] : [];
      return make("label", {}, input, make("span", {}, text), ...more);
    });
    return [
      make(
        "fieldset",
        { class: "taken" },
        make("legend", {}, "What if the head had not seen …"),
        make("div", {}, ...choices),
        said,
        make("p", { class: "hint" }, served(at)),
      ),
    ];
  }

  function served(at) {
    if (!columns.boxes) return ""; // of recordings nothing is served
    const more = `${data.whatIf.edges ? "Edges between labels, and s" : "S"}everal things at once`;
    return `${more}: emocache serve, at its address /#person=${columns.rows[at]}.`;
  }

  const TAKEN = { head: "the face", objects: "any object" }; // views that are called otherwise

  function removable(at) {
    const found = columns.asked[at];
    const scores = (all, n) => all.subarray(n * width, (n + 1) * width);
    const absent = [
      ...(columns.faces && !columns.faces[4 * at + 2] ? ["head"] : []),
      ...(columns.first && columns.first[at] === columns.first[at + 1] ? ["objects"] : []),
    ];
    const views = data.whatIf.views
      .map((view, n) => ({
        view,
        text: TAKEN[view] ?? view,
        values: scores(columns.withoutView, found * data.whatIf.views.length + n),
      }))
      .filter(({ view }) => !absent.includes(view));
    const first = columns.withoutFirst[found];
    const several = columns.withoutFirst[found + 1] - first;
    const things = (several ? objects(at) : []).map((one, n) => ({
      text: one.name,
      weight: columns.weights ? number(one.weight) : "",
      values: scores(columns.withoutObject, first + n),
    }));
    return [{ text: "nothing: all is there", values: null }, ...views, ...things];
  }

  function unpacked(value) {
    return data.whatIf.low + (data.whatIf.span * value) / FULL;
  }

  // The marks of a person whose scores are these.
  function decided(at, scores) {
    const best = scores.indexOf(Math.max(...scores));
    return marksOf(at).map((mark, label) => {
      const limit = data.thresholds[label];
      const over = data.kind === "multi" ? limit !== null && scores[label] >= limit : label === best;
      return (mark & TRUE) | (over ? PREDICTED : 0);
    });
  }

  // Which labels are predicted no longer, and which now.
  function moved(at, other) {
    const [was, is] = [marksOf(at), decided(at, other)];
    const changed = (from, to) =>
      data.labels.filter((_, n) => from[n] & PREDICTED && !(to[n] & PREDICTED));
    const [gone, come] = [changed(was, is), changed(is, was)];
    const what = shares ? "the largest share" : "predicted";
    const parts = [
      ...(gone.length ? [`${gone.join(", ")} no longer ${what}`] : []),
      ...(come.length ? [`${come.join(", ")} now ${what}`] : []),
    ];
    return parts.length ? `Without it: ${parts.join("; ")}.` : `Without it the same is ${what}.`;
  }

  function before(at, label, other, y1, y2) {
    const x = along(score(at, label));
    return other ? [make("line", { class: "before", x1: x, x2: x, y1, y2 })] : [];
  }

  function change(at, label, other) {
    if (!other) return [];
    const by = other[label] - score(at, label);
    const sign = by > 0 ? "+" : "−";
    const text = Math.abs(by) < 0.005 ? "" : `${sign}${number(Math.abs(by))}`;
    return [make("span", { class: "n change" }, text)];
  }

  // ---- What the head saw

  function depthOf(at) {
    if (!columns.depth || !data.depth) return [];
    const [high, wide] = data.depth.grid;
    const place = columns.place[at];
    const [across, down] = columns.sizes.subarray(2 * place, 2 * place + 2);
    const canvas = make("canvas", { width: wide, height: high });
    const pixels = new ImageData(wide, high);
    const cells = columns.depth.subarray(place * wide * high, (place + 1) * wide * high);
    cells.forEach((level, n) => pixels.data.set([level, level, level, 255], 4 * n));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const size = { width: across, height: down, preserveAspectRatio: "none" };
    const drawing = make(
      "svg",
      { class: "depth", viewBox: `0 0 ${across} ${down}`, role: "img", "aria-label": "depth" },
      make("image", { ...size, href: canvas.toDataURL() }),
      ...framed(columns.boxes.subarray(4 * at, 4 * at + 4), [across, down], "of-person"),
    );
    const said = `depth by ${data.depth.said}, ${high} × ${wide} in the cache; near is light`;
    return [make("figure", {}, drawing, make("figcaption", { class: "hint" }, said))];
  }

  function objectsOf(at) {
    if (!columns.first) return [];
    const found = objects(at);
    if (!found.length) return [make("p", { class: "hint" }, "No object found.")];
    const heads = ["object", "detected", ...(columns.weights ? ["weight"] : [])];
    const cell = (text, n) => make("td", n ? { class: "n" } : {}, text);
    const head = heads.map((text, n) =>
      make("th", { scope: "col", ...(n ? { class: "n" } : {}) }, text),
    );
    const rows = found.map((one) => {
      const values = [
        one.name,
        number(one.score),
        ...(columns.weights ? [number(one.weight)] : []),
      ];
      const row = make("tr", {}, ...values.map(cell));
      row.addEventListener("pointerenter", () => point(one.number, true));
      row.addEventListener("pointerleave", () => point(one.number, false));
      return row;
    });
    return [
      make(
        "table",
        { class: "objects" },
        make("thead", {}, make("tr", {}, ...head)),
        make("tbody", {}, ...rows),
      ),
    ];
  }

  function point(object, on) {
    const drawn = byId("person-seen").querySelector(`[data-object="${object}"]`);
    if (drawn) drawn.classList.toggle("marked", on);
  }

  function objects(at) {
    const found = [];
    for (let n = columns.first[at]; n < columns.first[at + 1]; n++) {
      found.push({
        number: n - columns.first[at],
        box: columns.objectBoxes.subarray(4 * n, 4 * n + 4),
        name: data.classes[columns.objectClasses[n]],
        score: columns.objectScores[n] / FULL,
        weight: columns.weights ? columns.weights[n] / FULL : NaN,
      });
    }
    return found;
  }

  // ---- What is seen: the thumbnail with its boxes

  function seen(at, whole) {
    const place = columns.place[at];
    const [wide, high] = columns.sizes.subarray(2 * place, 2 * place + 2);
    if (!wide) return make("span", { class: "nothing" }, placeOf(at));
    const why = data.without[place];
    if (why && !whole) return make("span", { class: "nothing" }, `${placeOf(at)}: ${why}`);
    const size = [wide, high];
    const drawing = make("svg", { viewBox: `0 0 ${wide} ${high}`, ...named(at, whole) });
    if (thumbnails[place]) {
      const href = `data:image/webp;base64,${thumbnails[place]}`;
      drawing.append(
        make("image", { width: wide, height: high, preserveAspectRatio: "none", href }),
      );
    }
    if (whole && columns.first)
      drawing.append(
        ...objects(at)
          .reverse()
          .map((one) => object(one, size)),
      );
    drawing.append(...framed(columns.boxes.subarray(4 * at, 4 * at + 4), size, "of-person"));
    if (whole && columns.faces) {
      drawing.append(...framed(columns.faces.subarray(4 * at, 4 * at + 4), size, "of-face"));
    }
    if (!whole || !why) return drawing;
    return make("div", {}, drawing, make("p", { class: "hint" }, why));
  }

  function named(at, whole) {
    if (!whole) return { "aria-hidden": "true" };
    const face = columns.faces && columns.faces[4 * at + 2] ? ", face found" : "";
    const things = columns.first
      ? objects(at)
          .map((one) => one.name)
          .join(", ") || "none"
      : "";
    const objectsSaid = columns.first ? `; objects: ${things}` : "";
    return { role: "img", "aria-label": `${name(at)}: the person's box${face}${objectsSaid}` };
  }

  function object(one, size) {
    const heavy = 1.2 + 3.2 * (columns.weights ? one.weight : 0.2);
    const frames = framed(one.box, size, "of-object", heavy);
    const group = make("g", { "data-object": one.number }, ...frames);
    if (one.number >= OBJECTS) return group;
    const high = Math.max(size[0], size[1]) / 34; // of the text, in pixels of the picture
    const [x, y] = [(one.box[0] / FULL) * size[0], (one.box[1] / FULL) * size[1]];
    const text = columns.weights ? `${one.name} ${number(one.weight)}` : one.name;
    const room = text.length * high * 0.55; // about what the text takes
    group.append(
      make(
        "text",
        {
          class: "object-name",
          x: Math.max(0, Math.min(x + high / 4, size[0] - room)),
          y: Math.min(y + high, size[1] - high / 4),
          style: `font-size:${high}px; stroke-width:${high / 5}px`,
        },
        text,
      ),
    );
    return group;
  }

  // A frame with a dark one below it, so that it is seen on any ground; none without a box.
  function framed([x1, y1, x2, y2], [wide, high], kind, heavy) {
    if (!x2 || !y2) return [];
    const at = {
      x: (x1 / FULL) * wide,
      y: (y1 / FULL) * high,
      width: ((x2 - x1) / FULL) * wide,
      height: ((y2 - y1) / FULL) * high,
    };
    const weight = heavy ? { style: `stroke-width:${heavy.toFixed(2)}px` } : {};
    const under = { style: `stroke-width:${((heavy ?? 2) + 2).toFixed(2)}px` };
    return [
      make("rect", { class: "box under", ...at, ...under }),
      make("rect", { class: `box ${kind}`, ...at, ...weight }),
    ];
  }

  function sign(kind) {
    const drawn = {
      hit: ["circle", { cx: 6.5, cy: 6.5, r: 5, fill: "currentColor" }],
      missed: [
        "circle",
        { cx: 6.5, cy: 6.5, r: 4.2, fill: "none", stroke: "currentColor", "stroke-width": 1.6 },
      ],
      wrong: ["path", { d: "M2.5 2.5l8 8m0-8l-8 8", stroke: "currentColor", "stroke-width": 1.8 }],
    }[kind];
    const svg = {
      class: "mark",
      width: 13,
      height: 13,
      viewBox: "0 0 13 13",
      "aria-hidden": "true",
    };
    return make("svg", svg, ...(drawn ? [make(...drawn)] : []));
  }

  function make(name, attributes, ...inside) {
    const drawn = ["svg", "g", "image", "rect", "line", "circle", "path", "text"].includes(name);
    const element = drawn
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...inside);
    return element;
  }

  // ---- All together

  function offer() {
    for (const [key, options] of Object.entries(choices())) {
      const made = options.map(([value, text]) => make("option", { value }, text));
      byId(key).replaceChildren(...made);
    }
    for (const key of controls) byId(key).value = state[key];
  }

  function refresh() {
    people = found();
    current = 0;
    box.scrollTop = 0;
    byId("count").textContent = `${thousands(people.length)} of ${thousands(count)} ${data.many}`;
    layOut();
  }

  function changed() {
    for (const key of controls) state[key] = byId(key).value;
    settle();
    offer();
    refresh();
    writeAddress();
  }

  // As the address asks.
  function enter() {
    offer();
    refresh();
    byId("everybody").scrollIntoView({ behavior: "instant" });
    const position = people.findIndex((at) => String(columns.rows[at]) === state.open);
    if (position >= 0) show(position);
    else if (card.open) card.close();
  }

  function start() {
    byId("finding").hidden = box.hidden = false;
    const asked = readAddress();
    offer();
    refresh();
    for (const key of controls) {
      byId(key).addEventListener(key === "find" ? "input" : "change", changed);
    }
    byId("reset").addEventListener("click", () => {
      Object.assign(state, NOTHING);
      offer();
      changed();
    });
    list.addEventListener("keydown", steer);
    box.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
    byId("before").addEventListener("click", () => step(-1));
    byId("after").addEventListener("click", () => step(1));
    byId("close").addEventListener("click", () => card.close());
    card.addEventListener("close", closed);
    card.addEventListener("click", (event) => event.target === card && card.close());
    card.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault(); // what is taken away is chosen by those up and down
      step(by);
    });
    new ResizeObserver(() => box.clientWidth !== grid.room && layOut()).observe(box);
    window.addEventListener("hashchange", () => readAddress() && enter());
    if (asked) enter();
  }

  start();
})();
