"""What the demo scenes are cut from: photographs inside installed packages, and where to cut.

The photographs are read where they lie when scenes are made; the project holds no copy, only these
outlines, boxes and names. All coordinates are x, y in pixels of the photograph.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from cache.errors import DataError

Box = tuple[int, int, int, int]


def installed(package: str, file: str) -> Path:
    """The path of a file inside an installed package; DataError where it is not there."""
    spec = find_spec(package)  # found, not imported: some packages take seconds to import
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    raise DataError(
        f"the demo scenes need {file} of the package {package}, which is not there: install the "
        "versions named in setup.cfg, or set data.name and data.root to a data set of your own"
    )


@dataclass(frozen=True)
class Photograph:
    package: str
    file: str
    size: tuple[int, int]  # the outlines fit a picture of this size only

    def open(self) -> Image.Image:
        """RGB; DataError where the package lacks the file or has another one."""
        path = installed(self.package, self.file)
        with Image.open(path) as picture:
            if picture.size != self.size:
                raise DataError(
                    f"{path} has {picture.size} pixels and the demo scenes were cut for "
                    f"{self.size}: install the version of {self.package} named in setup.cfg"
                )
            return picture.convert("RGB")


ASTRONAUT = Photograph("skimage", "data/astronaut.png", (512, 512))
CAMERA = Photograph("skimage", "data/camera.png", (512, 512))
CAT = Photograph("skimage", "data/chelsea.png", (451, 300))
COFFEE = Photograph("skimage", "data/coffee.png", (600, 400))
MOTORCYCLE = Photograph("skimage", "data/motorcycle_left.png", (741, 500))
STARS = Photograph("skimage", "data/hubble_deep_field.jpg", (1000, 872))
PAGE = Photograph("skimage", "data/page.png", (384, 191))
BRICK = Photograph("skimage", "data/brick.png", (512, 512))
GRASS = Photograph("skimage", "data/grass.png", (512, 512))
GRAVEL = Photograph("skimage", "data/gravel.png", (512, 512))
OFFICER = Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (512, 600))
FLOWER = Photograph("sklearn", "datasets/images/flower.jpg", (640, 427))
LAKE = Photograph("sklearn", "datasets/images/china.jpg", (640, 427))
TOUCHLINE = Photograph("ultralytics", "assets/zidane.jpg", (1280, 720))
STREET = Photograph("ultralytics", "assets/bus.jpg", (810, 1080))


@dataclass(frozen=True)
class Figure:
    """A person to cut out. `far` and `close` are heights in parts of the scene's height."""

    photograph: Photograph
    face: Box
    far: float
    close: float
    cut_right: bool = False  # the outline ends in a straight edge: it must lie at the scene's


FIGURES = {
    "orange suit": Figure(ASTRONAUT, (166, 76, 269, 179), 0.56, 0.93),
    "camera": Figure(CAMERA, (186, 122, 262, 198), 0.60, 0.93),
    "navy uniform": Figure(OFFICER, (167, 143, 366, 342), 0.56, 0.94),
    "pointing": Figure(TOUCHLINE, (518, 289, 659, 430), 0.56, 0.84, cut_right=True),
    "grey hair": Figure(TOUCHLINE, (904, 140, 1051, 287), 0.44, 0.76),
    "cream coat": Figure(STREET, (108, 423, 156, 471), 0.90, 1.45),
    "dark coat": Figure(STREET, (262, 428, 309, 476), 0.90, 1.45),
}
POINTING_ENDS = 800  # x at which the scene's edge cuts the stretched arm

# Each outline runs once around its figure or thing.
OUTLINES = {
    "orange suit": (
        "201,23 185,38 174,43 157,57 153,68 156,101 162,110 169,116 174,128 182,134 183,146 "
        "181,148 157,150 140,158 131,167 121,183 121,198 118,201 114,201 103,216 106,229 89,240 "
        "80,249 73,250 59,257 45,280 40,294 39,306 34,315 26,342 25,375 19,391 19,417 24,432 "
        "23,460 26,484 29,491 21,501 21,504 26,511 511,511 511,485 500,476 497,465 502,461 "
        "502,456 497,454 495,451 496,447 493,421 485,397 478,384 452,359 441,353 416,344 "
        "381,345 366,349 361,344 359,339 361,329 357,323 356,302 351,285 345,280 338,278 "
        "318,267 306,254 303,231 299,219 292,207 272,185 261,161 261,154 265,146 265,141 "
        "269,136 275,134 290,117 296,107 300,92 299,72 296,66 296,58 288,43 276,31 248,18 "
        "241,19 236,16 227,16 212,22 205,21 "
    ),
    "camera": (
        "247,81 226,73 219,68 193,69 186,73 172,87 160,106 150,107 129,125 109,127 77,142 "
        "59,164 49,185 42,192 34,205 30,216 19,226 16,236 0,258 0,511 135,511 136,502 132,494 "
        "138,483 139,446 133,425 136,421 146,415 143,399 152,393 176,348 184,340 190,330 "
        "191,319 198,306 203,301 217,299 230,306 242,303 249,309 261,306 264,309 266,323 "
        "278,333 278,340 271,362 275,370 277,369 283,348 288,345 297,345 299,343 300,335 "
        "306,327 304,316 310,310 315,308 316,304 303,278 304,271 298,251 306,245 305,233 "
        "317,221 323,210 325,201 331,194 329,187 330,176 326,169 321,169 317,165 317,157 "
        "323,153 324,142 318,140 285,143 278,140 261,140 258,137 258,133 262,129 267,130 "
        "269,128 269,113 266,106 256,95 "
    ),
    "navy uniform": (
        "219,30 209,44 197,49 181,64 176,73 174,85 157,101 145,106 147,173 151,180 157,185 "
        "153,197 153,211 155,219 161,228 171,263 167,279 174,288 189,294 194,299 196,318 "
        "183,333 164,344 132,354 121,360 96,363 70,373 61,380 53,381 47,387 25,472 17,526 "
        "15,568 11,599 511,599 511,444 492,393 464,377 422,366 408,358 361,340 343,324 338,322 "
        "328,310 330,304 335,300 337,295 349,284 361,261 367,236 367,228 370,223 369,210 "
        "375,196 374,187 368,181 371,134 369,129 369,100 364,88 355,87 353,85 348,71 335,56 "
        "313,44 300,41 290,32 281,27 270,24 249,23 238,25 227,31 "
    ),
    "pointing": (
        "1149,413 1135,406 1082,407 1040,411 1025,416 1011,413 1012,419 1000,427 987,427 "
        "964,436 911,442 853,441 802,446 789,443 779,445 765,437 746,434 729,435 673,408 "
        "666,399 665,372 660,366 654,340 656,319 662,307 659,272 644,242 611,215 575,203 "
        "551,203 526,216 493,255 488,271 489,282 481,293 480,301 459,308 448,319 437,319 "
        "419,329 404,327 397,321 290,323 287,328 271,330 257,344 224,406 224,413 209,435 "
        "187,496 184,515 174,542 175,630 165,647 164,663 153,663 134,689 121,719 631,719 "
        "649,668 661,619 661,540 671,505 770,529 782,539 827,541 833,537 892,535 920,527 "
        "931,511 956,507 966,501 996,505 1000,495 1010,487 1066,485 1073,479 1076,466 1089,450 "
        "1090,432 1094,426 1120,421 1145,422 "
    ),
    "grey hair": (
        "1034,60 1019,55 1001,44 966,44 943,52 932,63 921,67 918,77 901,98 894,126 896,133 "
        "897,169 896,204 903,210 904,234 897,242 891,256 871,256 865,261 860,269 849,273 "
        "846,272 830,279 822,285 821,291 813,300 801,305 787,319 785,325 775,338 775,344 "
        "767,351 760,363 754,387 754,397 756,399 774,399 784,407 937,407 965,399 968,402 "
        "970,409 974,411 990,406 996,398 999,398 1007,410 1015,404 1022,411 1060,410 1063,408 "
        "1071,409 1081,406 1077,394 1071,384 1071,379 1064,369 1063,352 1060,345 1049,344 "
        "1043,337 1028,328 1020,317 1020,311 1023,304 1023,293 1018,278 1024,263 1042,237 "
        "1047,220 1048,209 1053,197 1056,168 1062,157 1068,135 1071,131 1068,108 1069,102 "
        "1061,86 1054,83 1043,69 1037,67 1034,64 "
    ),
    "cream coat": (
        "128,398 124,398 116,404 113,409 104,409 99,413 96,428 96,434 98,438 97,465 92,471 "
        "81,478 70,488 63,498 61,507 61,519 63,524 63,548 59,554 59,563 64,574 65,581 62,590 "
        "62,626 59,644 58,687 60,690 61,700 67,704 73,711 72,759 75,764 74,775 79,782 74,806 "
        "61,817 58,855 56,858 51,883 54,887 72,896 79,903 87,905 99,904 100,899 106,893 105,885 "
        "95,876 94,870 90,865 90,862 85,853 86,850 84,843 86,835 90,830 90,824 92,822 103,819 "
        "102,772 107,765 107,758 112,741 112,733 116,721 116,710 119,704 123,701 136,701 "
        "139,704 139,720 144,744 147,752 152,759 151,772 155,778 161,810 165,818 169,837 "
        "177,858 176,896 178,898 187,898 200,895 215,894 237,887 240,884 238,873 223,869 "
        "198,848 195,843 194,828 191,815 191,797 188,787 184,755 185,740 183,730 180,725 "
        "180,712 177,695 180,691 189,690 192,687 190,646 184,627 183,610 178,601 186,594 "
        "194,590 200,583 200,555 192,543 189,532 181,520 181,514 183,511 182,507 174,501 "
        "174,493 157,473 158,468 155,463 157,439 155,433 158,430 157,410 154,405 141,400 "
        "133,400 "
    ),
    "dark coat": (
        "288,407 282,408 278,412 272,412 267,416 266,439 264,443 266,449 267,470 258,480 "
        "257,486 254,489 250,490 243,497 238,507 236,524 240,530 241,540 237,551 237,570 "
        "235,573 234,582 241,596 241,601 232,632 225,688 226,698 233,701 239,701 243,705 "
        "243,752 246,757 248,785 254,805 254,818 258,823 257,832 250,836 250,838 256,842 "
        "255,845 264,852 264,856 267,859 283,859 290,855 285,847 287,836 284,831 285,828 "
        "296,818 296,816 293,812 292,804 283,789 283,779 287,777 320,742 328,737 339,720 "
        "339,707 335,701 335,692 338,686 335,677 329,635 328,608 326,598 318,587 316,581 "
        "317,573 325,565 333,566 336,563 339,557 339,550 342,539 337,526 336,509 330,491 "
        "326,487 314,483 300,470 305,457 305,449 303,446 304,424 301,414 296,409 "
    ),
    "motorcycle": (
        "680,421 681,394 679,385 663,371 658,356 653,352 652,346 645,340 648,330 636,313 "
        "636,310 643,302 609,274 589,267 578,266 572,261 566,262 535,237 557,202 558,168 "
        "565,163 563,141 552,125 568,116 566,114 538,113 523,95 512,100 497,113 495,119 500,125 "
        "499,128 479,144 475,156 459,153 455,150 447,150 441,146 419,145 407,150 392,166 "
        "383,188 363,197 350,188 343,188 330,197 308,198 303,195 291,195 267,185 248,168 "
        "239,171 234,169 202,170 172,158 164,162 158,162 149,168 139,162 139,173 143,179 "
        "140,188 133,195 108,195 99,199 99,201 109,201 111,203 109,217 111,232 114,236 112,242 "
        "115,246 142,230 151,229 154,232 156,247 142,257 133,267 135,285 128,294 122,327 "
        "129,348 143,369 158,383 187,397 194,403 231,409 237,403 242,392 256,386 296,381 "
        "324,381 335,371 378,378 390,371 407,370 424,364 436,363 451,349 459,336 458,330 "
        "463,311 460,302 454,295 462,287 467,289 465,281 479,264 478,255 493,250 502,235 "
        "517,235 533,262 531,276 534,284 528,290 528,293 534,300 536,308 528,324 530,353 "
        "540,376 550,391 582,421 583,435 612,449 634,448 653,438 669,438 "
    ),
    "flower": (
        "319,85 310,85 300,90 292,91 280,98 263,95 249,99 228,114 214,116 207,124 204,133 "
        "194,139 188,149 189,168 186,171 181,170 177,174 176,185 178,193 171,200 169,208 "
        "170,232 174,238 171,247 172,261 178,269 179,276 184,283 187,295 198,306 202,316 "
        "212,324 227,326 235,340 247,350 260,350 266,348 273,353 284,355 290,359 305,359 "
        "312,356 320,358 335,357 349,350 361,348 372,343 383,334 397,330 406,320 408,309 "
        "416,302 418,295 427,284 430,274 435,266 437,254 443,244 443,230 445,226 445,212 "
        "440,200 440,192 432,182 432,166 427,149 422,141 411,132 408,123 399,114 389,113 "
        "383,105 372,99 359,98 347,92 332,92 328,88 "
    ),
}


def outline(name: str) -> list[tuple[int, int]]:
    pairs = (pair.split(",") for pair in OUTLINES[name].split())
    points = [(int(x), int(y)) for x, y in pairs]
    if name == "pointing":
        points = [(min(x, POINTING_ENDS), y) for x, y in points]
    return points


def cut(photograph: Image.Image, points: list[tuple[int, int]]) -> tuple[Image.Image, Box]:
    """RGBA cut-out with a soft edge just inside the outline, and its box in the photograph."""
    mask = Image.new("L", photograph.size)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    blurred = mask.filter(ImageFilter.GaussianBlur(1.5))
    mask = blurred.point(lambda v: max(0, min(255, (v - 110) * 2)))
    box = mask.getbbox()
    assert box is not None
    whole = photograph.convert("RGBA")
    whole.putalpha(mask)
    return whole.crop(box), box


def figure(name: str) -> tuple[Image.Image, Box]:
    """A person's cut-out (RGBA) and the box of its face in it."""
    source = FIGURES[name]
    picture, (left, top, _, _) = cut(source.photograph.open(), outline(name))
    x1, y1, x2, y2 = source.face
    return picture, (x1 - left, y1 - top, x2 - left, y2 - top)


# What stands near or far from a person. The cat, the cup and the bus are shown as prints with a
# white border: cut out, the detector took the cup for a cake and the flower for an orange.


def cat() -> Image.Image:
    return framed(CAT.open().crop((0, 0, 395, 300)))


def cup() -> Image.Image:
    return framed(COFFEE.open().crop((60, 0, 520, 400)))


def motorcycle() -> Image.Image:
    return cut(MOTORCYCLE.open(), outline("motorcycle"))[0]


def bus() -> Image.Image:
    """The part of the bus that nobody stands before, beside its mirror image."""
    half = STREET.open().crop((345, 232, 668, 745))
    whole = Image.new("RGB", (2 * half.width, half.height))
    whole.paste(ImageOps.mirror(half), (0, 0))
    whole.paste(half, (half.width, 0))
    return framed(whole)


def clock(side: int = 400) -> Image.Image:
    picture, draw, middle = *_sheet(side, side), side / 2
    draw.ellipse((4, 4, side - 4, side - 4), fill=(40, 40, 45, 255))
    draw.ellipse((26, 26, side - 26, side - 26), fill=(245, 243, 235, 255))

    def tip(hour: float, length: float) -> tuple[float, float]:
        angle = np.radians(hour * 30 - 90)
        return middle + length * side * np.cos(angle), middle + length * side * np.sin(angle)

    for hour in range(1, 13):
        draw.text(tip(hour, 0.36), str(hour), (20, 20, 20, 255), font(side // 9), anchor="mm")
    draw.line((middle, middle, *tip(10, 0.20)), fill=(10, 10, 10, 255), width=14)
    draw.line((middle, middle, *tip(1.8, 0.30)), fill=(10, 10, 10, 255), width=8)
    draw.ellipse((middle - 10, middle - 10, middle + 10, middle + 10), fill=(160, 20, 20, 255))
    return picture


def stop_sign(side: int = 400) -> Image.Image:
    height = int(1.75 * side)
    picture, draw, middle = *_sheet(side, height), side / 2
    draw.rectangle((middle - 12, side - 20, middle + 12, height), fill=(150, 150, 155, 255))
    corners = np.radians(22.5 + 45 * np.arange(8))
    for radius, colour in ((0.53, (245, 245, 245, 255)), (0.49, (190, 20, 30, 255))):
        x, y = middle + radius * side * np.cos(corners), middle + radius * side * np.sin(corners)
        draw.polygon(list(zip(x, y, strict=True)), fill=colour)
    draw.text((middle, middle), "STOP", (250, 250, 250, 255), font(int(side * 0.27)), anchor="mm")
    return picture


@dataclass(frozen=True)
class Thing:
    """An object of a scene. `group` is what the planted rules ask for; `low` and `high` are its
    height in parts of the scene's height; `classes` are the COCO names it should be found under."""

    group: str
    low: float
    high: float
    classes: tuple[str, ...]
    above: bool = False  # belongs in the upper half


THINGS = {
    "cat": Thing("cosy", 0.24, 0.34, ("cat",)),
    "cup": Thing("cosy", 0.27, 0.36, ("cup", "dining table")),
    "motorcycle": Thing("alarm", 0.26, 0.36, ("motorcycle",)),
    "stop sign": Thing("alarm", 0.34, 0.50, ("stop sign",)),
    "clock": Thing("travel", 0.22, 0.32, ("clock",), above=True),
    "bus": Thing("travel", 0.34, 0.42, ("bus",)),
}


def thing(name: str) -> Image.Image:
    return {
        "cat": cat, "cup": cup, "motorcycle": motorcycle, "stop sign": stop_sign,
        "clock": clock, "bus": bus,
    }[name]()  # fmt: skip


# What hides a face.


def covers() -> tuple[Image.Image, ...]:
    """A flower and a scrap of print, each about as wide as high.

    Chosen by trial: the face detector took a moon, a present and a field of stars for a face.
    """
    scrap = framed(PAGE.open().crop((0, 0, 190, 190)), 0.02)
    return cut(FLOWER.open(), outline("flower"))[0], scrap


def framed(print_: Image.Image, share: float = 0.03) -> Image.Image:
    border = round(share * max(print_.size))
    return ImageOps.expand(print_, border, (250, 250, 248)).convert("RGBA")


def _sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGBA", (width, height))
    return picture, ImageDraw.Draw(picture)


def font(size: int, bold: bool = True) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, so that it looks the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(installed("matplotlib", f"mpl-data/fonts/ttf/{name}")), size)
