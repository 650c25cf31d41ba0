// Pictures with the boxes of a detector. The box under the pointer, or the one that has the focus,
// shows its four distributions and its numbers.

const CLASS_COLORS = 8; // so many colours and three styles of lines are in page.css
const START_SCORE = 0.3;

function showPredictions(about, items, pictures) {
  const all = items.flatMap((item) => item.boxes);
  const names = countsOf(all.map((box) => box.class)).map(([name]) => name);
  const styles = new Map(names.map((name, k) => {
    const style = ["solid", "dashed", "dotted"][Math.floor(k / CLASS_COLORS) % 3];
    return [name, `color${k % CLASS_COLORS} ${style}`];
  }));
  const start = all.some((box) => (box.score ?? 1) >= START_SCORE) ? START_SCORE : 0;
  const controls = {
    classes: makeChoice("Class", classPairs(all.map((box) => box.class))),
    score: makeSlider("Score at least", start),
  };
  const form = document.getElementById("filters");
  const sheet = document.getElementById("sheet");
  const count = make("span", { id: "count", role: "status" });
  const cards = items.map((item, index) => makePredictionCard(item, pictures[index], styles));
  let fits = () => true;

  form.append(...Object.values(controls).map((control) => control.element));
  document.getElementById("intro").append(...predictionIntro(all));
  document.getElementById("bar").append(count);
  sheet.className = "pictures";
  sheet.append(...cards.map((card) => card.element));
  const byElement = new Map(cards.map((card) => [card.element, card]));
  whenNear(byElement.keys(), (element) => {
    byElement.get(element).draw();
    byElement.get(element).show(fits);
  });

  function refresh() {
    const [chosen, score] = [controls.classes.read(), controls.score.read()];
    fits = (box) => isChosen(chosen, box.class) && (box.score ?? 1) >= score;
    const shown = items.map((item) => item.boxes.filter(fits).length);
    const sum = shown.reduce((a, b) => a + b, 0);
    const filled = shown.filter((n) => n > 0).length;
    count.textContent =
      `${sum} of ${all.length} boxes shown, in ${filled} of ${items.length} pictures.`;
    for (const card of cards) card.show(fits);
  }
  listen(form, refresh);
  refresh();
}

function predictionIntro(boxes) {
  return [howTo(make("p", {}, ...predictionHints(boxes)))];
}

function predictionHints(boxes) {
  const hint = "Point at a box, tap it, or reach it with Tab and the arrow keys";
  if (boxes.some((box) => box.p)) {
    return [
      `${hint}: the bars beside the picture say where the detector thinks that each of its sides `,
      "is; the taller the more likely, each side by its own scale. ± is their standard deviation ",
      "in pixels. One narrow peak: a sharp side. Wide or two peaks: the detector is not sure."];
  }
  if (boxes.some((box) => box.stds)) {
    return [`${hint}: the curves beside the picture are normal distributions of the `,
      "standard deviations of its sides (±, in pixels). The distributions themselves are not known."];
  }
  return [`${hint}: its numbers are below the picture. This detector does not say how `,
    "sure it is of a side."];
}

function makePredictionCard(item, picture, styles) {
  const frame = makeFigure(item);
  const numbers = make("div", { class: "numbers" });
  const marker = make("div", { "aria-hidden": "true" });
  const hasSides = item.boxes.some((box) => box.p || box.stds);
  frame.figure.classList.toggle("bare", !hasSides);
  const element = make("article", { class: "card picture" },
    make("h2", { class: "file" }, item.title), frame.figure, numbers);
  const boxes = [...item.boxes].sort((a, b) => (b.score ?? 1) - (a.score ?? 1));
  let buttons = [];
  let active = null;

  /** Shows a box's distributions and numbers; null: none. */
  function choose(index) {
    active = index;
    const box = boxes[index];
    buttons.forEach((button, k) => {
      button.classList.toggle("active", k === index);
      button.tabIndex = k === index ? 0 : -1; // Tab goes from picture to picture
    });
    marker.hidden = !box;
    frame.overlay.replaceChildren(...(box && hasSides ? [guidePaths(item, box)] : []));
    const sides = drawSides(frame, item, box);
    if (!box) {
      numbers.replaceChildren(make("p", { class: "caption" }, "No box has this class and score."));
      return;
    }
    drawMarker(marker, buttons[index]);
    const size = [box.bbox[2] - box.bbox[0], box.bbox[3] - box.bbox[1]].map(pixels).join(" x ");
    const caption = make("p", { class: "caption" }, make("b", {}, nameOf(box)), `, ${size} px`);
    numbers.replaceChildren(caption, makeTable(box, sides));
  }

  function draw() {
    frame.image.src = picture.textContent;
    buttons = boxes.map((box) => makeBoxButton(item, box, styles.get(box.class)));
    buttons.forEach((button, index) => {
      for (const event of ["pointerenter", "focus", "click"]) {
        button.addEventListener(event, () => active !== index && choose(index));
      }
    });
    frame.photo.append(...buttons, marker);
    frame.photo.addEventListener("keydown", move);
  }

  /** Arrow keys go from box to box, by score. */
  function move(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const shown = buttons.filter((button) => !button.hidden);
    const next = shown.indexOf(document.activeElement) + by;
    shown[Math.min(Math.max(next, 0), shown.length - 1)]?.focus();
  }

  function show(fits) {
    if (!buttons.length && boxes.length) return; // not drawn yet
    buttons.forEach((button, index) => (button.hidden = !fits(boxes[index])));
    if (active === null || active < 0 || buttons[active]?.hidden) choose(boxes.findIndex(fits));
  }
  return { element, draw, show };
}

const nameOf = (box) => box.class + (box.score === undefined ? "" : ` ${box.score.toFixed(2)}`);

/** A box over the picture. A small box lies over a large one, so that both can be reached. */
function makeBoxButton(item, box, style) {
  const [x0, y0, x1, y1] = cornersOf(item, box);
  const { width, height } = item;
  const part = (value, whole) => `${((100 * value) / whole).toFixed(3)}%`;
  const area = ((x1 - x0) * (y1 - y0)) / (width * height);
  const place = [
    `left:${part(x0, width)}`, `top:${part(y0, height)}`,
    `width:${part(x1 - x0, width)}`, `height:${part(y1 - y0, height)}`,
    `z-index:${1 + Math.round(1000 * (1 - Math.min(area, 1)))}`,
  ];
  const tag = `tag${y0 > 16 ? "" : " inside"}${x0 > 0.75 * width ? " end" : ""}`;
  return make("button",
    { type: "button", class: `box ${style}`, style: place.join(";"), "aria-label": nameOf(box) },
    make("span", { class: tag }, nameOf(box)));
}

/** Repeats the chosen box over all others, without being in the way of the pointer. */
function drawMarker(marker, button) {
  marker.className = `marker ${button.className.replace("box ", "")}`;
  for (const name of ["left", "top", "width", "height"]) marker.style[name] = button.style[name];
  marker.replaceChildren(button.firstChild.cloneNode(true));
}
