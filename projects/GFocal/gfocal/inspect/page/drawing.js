"use strict";
// Elements, and the drawing of a picture: boxes over it, and beside it the distributions of a box.
//
// An item: {title, width, height, origin, scale, bins, boxes, finding?}, see items.py. Sides are
// left, top, right, bottom; left and right are places along x, top and bottom along y.

const SIDES = ["left", "top", "right", "bottom"];
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "line", "g"]);

/** An element. Text never becomes HTML: names of files and classes are anybody's. */
function make(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

/** "wrong_class" -> "wrong class" */
const words = (name) => name.replaceAll("_", " ");

/** A number of pixels, as short as it is still of use. */
function pixels(value) {
  return value.toFixed(Math.abs(value) < 9.95 ? 1 : 0);
}

/** A place in the image -> in the picture; side 0 and 2: x, 1 and 3: y. */
function toPicture(item, side, place) {
  return (place - item.origin[side % 2]) * item.scale;
}

/** The corners of a box in the picture. */
function cornersOf(item, box) {
  return box.bbox.map((place, side) => toPicture(item, side, place));
}

/**
 * What is known of a box's sides: for each side its curve, a list of [place in the picture, height
 * from 0 to 1], and its standard deviation in pixels of the image. Null for a box without.
 */
function sidesOf(item, box) {
  if (box.p) {
    const bytes = Uint8Array.from(atob(box.p), (character) => character.charCodeAt(0));
    const bins = item.bins[box.bins];
    return SIDES.map((name, side) => {
      const heights = [...bytes.subarray(side * bins.length, (side + 1) * bins.length)];
      const [first, last] = box.ends[side];
      const places = bins.map((bin) => first + bin * (last - first));
      const std = box.stds ? box.stds[side] : stdOf(places, heights);
      const curve = places.map((place, k) => [toPicture(item, side, place), heights[k] / 255]);
      return { std, outline: barsOf(curve) };
    });
  }
  if (box.stds) {
    return SIDES.map((name, side) => {
      const std = box.stds[side];
      const center = toPicture(item, side, box.bbox[side]);
      return { std, outline: [normalCurve(center, Math.max(std * item.scale, 0.25))] };
    });
  }
  return null;
}

function stdOf(places, weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const mean = places.reduce((sum, place, k) => sum + place * weights[k], 0) / total;
  const variance = places.reduce((sum, place, k) => sum + (place - mean) ** 2 * weights[k], 0);
  return Math.sqrt(variance / total);
}

/** A bar around each bin that is not empty: lists of corners. */
function barsOf(curve) {
  return curve.flatMap(([place, height], k) => {
    const before = curve[k - 1] ?? [2 * place - curve[k + 1][0]];
    const after = curve[k + 1] ?? [2 * place - curve[k - 1][0]];
    const [a, b] = [place + 0.45 * (before[0] - place), place + 0.45 * (after[0] - place)];
    return height > 0 ? [[[a, 0], [a, height], [b, height], [b, 0]]] : [];
  });
}

function normalCurve(center, std) {
  const steps = Array.from({ length: 49 }, (_, k) => (k - 24) / 7);
  return steps.map((z) => [center + z * std, Math.exp((-z * z) / 2)]);
}

/** The path of outlines in a strip: heights go down for x, to the right for y. */
function pathOf(outline, side) {
  const point = ([place, height]) => {
    const [along, out] = [place.toFixed(2), (100 * height).toFixed(1)];
    return side % 2 ? `${out} ${along}` : `${along} ${out}`;
  };
  return outline.map((corners) => `M${corners.map(point).join("L")}Z`).join("");
}

/** A line that is seen on dark and on light pictures: its colour over a dark one that is wider. */
function twice(kind, path) {
  return ["halo", "line"].map((name) => make("path", { class: `${name} ${kind}`, d: path }));
}

function rectanglePath([x0, y0, x1, y1]) {
  return `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;
}

function sidePath([x0, y0, x1, y1], side) {
  const x = side === 0 ? x0 : x1;
  const y = side === 1 ? y0 : y1;
  return side % 2 ? `M${x0} ${y}H${x1}` : `M${x} ${y0}V${y1}`;
}

/** The frame of a picture: the picture, a strip below it and one beside it, and their labels. */
function makeFigure(item) {
  const { width, height } = item;
  const svg = (name, box) =>
    make("svg", { class: name, viewBox: box, preserveAspectRatio: "none", "aria-hidden": "true" });
  const image = make("img", { alt: `Part of ${item.title}`, width, height, draggable: "false" });
  const overlay = svg("overlay", `0 0 ${width} ${height}`);
  const below = svg("below", `0 0 ${width} 100`);
  const beside = svg("beside", `0 0 100 ${height}`);
  const photo = make("div", { class: "photo" }, image, overlay);
  const labels = SIDES.map((name) => make("span", { class: `side ${name}` }));
  const figure = make(
    "div",
    { class: "figure", style: `--w:${width};--h:${height}` },
    photo,
    make("div", { class: "right" }, beside, labels[1], labels[3]),
    make("div", { class: "under" }, below, labels[0], labels[2]),
  );
  return { figure, photo, image, overlay, strips: [below, beside], labels };
}

/**
 * Draws the distributions of one box into the strips of a frame, dotted lines from its sides to
 * them, and where the sides of other boxes are.
 */
function drawSides(frame, item, box, others = [], suspects = []) {
  const sides = box && sidesOf(item, box);
  for (const strip of frame.strips) strip.replaceChildren();
  SIDES.forEach((name, side) => {
    const label = frame.labels[side];
    const suspect = suspects.includes(name);
    label.classList.toggle("suspect", suspect);
    label.textContent = sides ? `${suspect ? "⚠ " : ""}${name} ±${pixels(sides[side].std)}` : "";
    if (!sides) return;
    const strip = frame.strips[side % 2];
    const shape = make("path", { d: pathOf(sides[side].outline, side) });
    shape.setAttribute("class", `chance${suspect ? " suspect" : ""}${box.p ? "" : " normal"}`);
    const across = (place) => (side % 2 ? `M0 ${place}H100` : `M${place} 0V100`);
    strip.append(shape);
    for (const other of [box, ...others]) {
      strip.append(...twice(other.role, across(cornersOf(item, other)[side])));
    }
  });
  return sides;
}

/** Thin lines in the picture from the sides of a box to the strips. */
function guidePaths(item, box) {
  const [x0, y0, x1, y1] = cornersOf(item, box);
  const down = [x0, x1].map((x) => `M${x} ${y1}V${item.height}`);
  const right = [y0, y1].map((y) => `M${x1} ${y}H${item.width}`);
  return make("path", { class: "guide", d: [...down, ...right].join("") });
}

/** A table of numbers: a row a box, and how far apart they are in standard deviations. */
function makeTable(box, sides, other) {
  const row = (name, cells) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((text) => make("td", {}, text)));
  const head = ["", ...SIDES].map((name) => make("th", name ? { scope: "col" } : {}, name));
  const rows = [row(words(box.role), box.bbox.map((x) => x.toFixed(1)))];
  if (sides) rows.push(row("± std", sides.map(({ std }) => std.toFixed(1))));
  if (other) {
    rows.push(row(words(other.role), other.bbox.map((x) => x.toFixed(1))));
    const apart = (x, side) => Math.abs(x - box.bbox[side]);
    if (sides) {
      const stds = other.bbox.map((x, side) => apart(x, side) / Math.max(sides[side].std, 1e-6));
      rows.push(row("apart, stds", stds.map((z) => (z < 99.5 ? z.toFixed(1) : "> 99"))));
    }
  }
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}
