// The controls above the sheet. Each is a label with its own input; `read` says what is chosen.

/** A choice of one among [value, text] pairs. */
function makeChoice(label, pairs) {
  const options = pairs.map(([value, text]) => make("option", { value }, text));
  const select = make("select", {}, ...options);
  return { element: make("label", {}, `${label} `, select), input: select, read: () => select.value };
}

/** A box to tick for each [value, text]; all are ticked at first. */
function makeTicks(legend, pairs) {
  const inputs = pairs.map(([value]) => make("input", { type: "checkbox", value, checked: true }));
  const labels = pairs.map(([, text], k) => make("label", { class: "tick" }, inputs[k], ` ${text}`));
  const element = make("fieldset", {}, make("legend", {}, legend), ...labels);
  const read = () => new Set(inputs.filter((input) => input.checked).map((input) => input.value));
  return { element, read };
}

/** A slider of the lowest score. */
function makeSlider(label, start) {
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: start });
  const output = make("output", {}, Number(start).toFixed(2));
  const read = () => Number(input.value);
  input.addEventListener("input", () => (output.value = read().toFixed(2)));
  return { element: make("label", { class: "slider" }, `${label} `, input, output), input, read };
}

/** [name, how often it comes], in the order of the alphabet. */
function countsOf(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Pairs for makeChoice of classes; "" stands for all. A class may have any name, so it has a letter before it. */
function classPairs(names) {
  const pairs = countsOf(names).map(([name, count]) => [`c${name}`, `${name} (${count})`]);
  return [["", "all"], ...pairs];
}

/** Whether a class is chosen. */
const isChosen = (choice, name) => choice === "" || choice === `c${name}`;

/** Calls `change` when a control changes. Enter in a control must not load the page again. */
function listen(form, change) {
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
}

/** What explains the page; it takes no room on a small window until it is opened. */
function howTo(...paragraphs) {
  const open = window.innerWidth >= 600;
  return make("details", { open }, make("summary", {}, "How to read this page"), ...paragraphs);
}

/** Calls `draw` once, when an element comes near the window. */
function whenNear(elements, draw) {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((x) => x.isIntersecting)) {
        observer.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const element of elements) observer.observe(element);
}
