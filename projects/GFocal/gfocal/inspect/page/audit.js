// A sheet of findings: a card each, to accept, reject or skip with the mouse or the keyboard.

const DECISIONS = { accept: "a", reject: "r", skip: "s" };
const DONE = { accept: "accepted", reject: "rejected", skip: "skipped" };

/** The decisions, as the browser keeps them for this page alone. */
class Decisions {
  constructor(key, ids) {
    this.key = key;
    this.kept = true; // false where the browser keeps nothing
    this.undone = []; // [id, the decision before] of each change
    this.byId = new Map();
    try {
      const stored = JSON.parse(localStorage.getItem(key) ?? "[]");
      this.byId = new Map(stored.filter(([id, word]) => ids.has(id) && word in DECISIONS));
    } catch {
      this.kept = false;
    }
  }

  get(id) {
    return this.byId.get(id);
  }

  set(id, decision) {
    this.undone.push([id, this.get(id)]);
    this.#put(id, decision);
  }

  /** Takes the last change back; returns the finding's id, or undefined. */
  undo() {
    const [id, before] = this.undone.pop() ?? [];
    if (id !== undefined) this.#put(id, before);
    return id;
  }

  #put(id, decision) {
    if (decision === undefined) this.byId.delete(id);
    else this.byId.set(id, decision);
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.byId]));
    } catch {
      this.kept = false;
    }
  }

  /** What the button downloads, in the order of the page. */
  asText(title, ids) {
    const decided = ids.filter((id) => this.byId.has(id));
    const decisions = decided.map((id) => ({ id, decision: this.byId.get(id) }));
    return `${JSON.stringify({ page: title, decisions }, null, 1)}\n`;
  }
}

function showAudit(about, items, pictures) {
  const cards = items.map(makeAuditCard);
  const ids = items.map((item) => item.finding.id);
  const byId = new Map(cards.map((card) => [card.item.finding.id, card]));
  const decisions = new Decisions(about.key, new Set(ids));
  const sheet = document.getElementById("sheet");
  const status = document.getElementById("status");
  const bar = makeBar(() => download(about.name, decisions.asText(about.title, ids)));
  const form = document.getElementById("filters");
  const controls = makeAuditControls(items);
  const cardOf = new Map(cards.map((card, index) => [card.element, [card, pictures[index]]]));
  let shown = [];
  let current = null;
  let order = null;

  form.append(...Object.values(controls).map((control) => control.element));
  document.getElementById("intro").append(...auditIntro(items));
  sheet.className = "cards";
  whenNear(cardOf.keys(), (element) => {
    const [card, picture] = cardOf.get(element);
    drawAuditCard(card, picture.textContent);
  });

  function refresh() {
    const choice = Object.fromEntries(Object.entries(controls).map(([k, x]) => [k, x.read()]));
    const fits = ({ item: { finding } }) =>
      choice.kinds.has(finding.kind) &&
      isChosen(choice.classes, finding.class) &&
      finding.score >= choice.score &&
      (choice.show === "" || choice.show === (decisions.get(finding.id) ?? "open"));
    if (choice.order !== order) {
      order = choice.order; // only now: a card that is moved loses the focus
      const sign = order === "low" ? -1 : 1;
      cards.sort((a, b) => sign * (b.item.finding.score - a.item.finding.score));
      sheet.append(...cards.map((card) => card.element));
    }
    shown = cards.filter(fits);
    for (const card of cards) {
      card.element.hidden = !fits(card);
      card.showDecision(decisions.get(card.item.finding.id));
    }
    bar.show(shown.length, items.length, decisions);
  }

  /** Makes a card the one that keys act on. */
  function choose(card) {
    current?.element.removeAttribute("aria-current");
    current = card;
    card?.element.setAttribute("aria-current", "true");
  }

  function go(card) {
    choose(card);
    card?.element.focus({ preventScroll: true });
    card?.element.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const index = shown.indexOf(current);
    if (index < 0) go(shown[by > 0 ? 0 : shown.length - 1] ?? null);
    else go(shown[Math.min(Math.max(index + by, 0), shown.length - 1)]);
  }

  /** The same decision again takes it back. Keys go on to the next card, buttons stay. */
  function decide(card, decision, goOn) {
    const { id } = card.item.finding;
    const next = shown[shown.indexOf(card) + 1] ?? null;
    const isBack = !goOn && decisions.get(id) === decision;
    decisions.set(id, isBack ? undefined : decision);
    refresh();
    const said = `Finding ${id} ${isBack ? "is open again" : DONE[decision]}.`;
    if (goOn && next) go(next);
    else if (goOn && !shown.includes(card)) go(shown.at(-1) ?? null);
    status.textContent = goOn && current && current !== card ? `${said} ${current.name}` : said;
  }

  function undo() {
    const id = decisions.undo();
    if (id === undefined) {
      status.textContent = "Nothing to undo.";
      return;
    }
    refresh();
    go(byId.get(id));
    status.textContent = `Finding ${id} is ${DONE[decisions.get(id)] ?? "open"} again.`;
  }

  const keys = {
    ArrowRight: () => step(1), ArrowDown: () => step(1), j: () => step(1),
    ArrowLeft: () => step(-1), ArrowUp: () => step(-1), k: () => step(-1),
    u: undo,
  };
  for (const [decision, key] of Object.entries(DECISIONS)) {
    keys[key] = () => current && !current.element.hidden && decide(current, decision, true);
  }
  document.addEventListener("keydown", (event) => {
    const isTyped = event.target.closest("select, input, summary");
    if (isTyped || event.ctrlKey || event.altKey || event.metaKey) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  for (const card of cards) {
    card.element.addEventListener("focusin", () => choose(card));
    card.element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      choose(card);
      if (button) decide(card, button.value, false);
    });
  }
  listen(form, refresh);
  refresh();
}

function makeAuditControls(items) {
  const findings = items.map((item) => item.finding);
  const kinds = countsOf(findings.map((finding) => finding.kind));
  const show = [["", "all"], ["open", "open"], ...Object.entries(DONE)];
  return {
    kinds: makeTicks("Kind", kinds.map(([kind, count]) => [kind, `${words(kind)} (${count})`])),
    classes: makeChoice("Class", classPairs(findings.map((finding) => finding.class))),
    show: makeChoice("Show", show),
    order: makeChoice("Order", [["high", "highest score first"], ["low", "lowest score first"]]),
    score: makeSlider("Score at least", 0),
  };
}

function auditIntro(items) {
  const hasOthers = items.some((item) => annotationsOf(item).length > 1);
  const sample = (role, text) => make("span", { class: "sample" }, roleSample(role), ` ${text}`);
  const key = (name) => make("kbd", {}, name);
  return [
    make("p", { class: "legend" },
      sample("annotation", `annotation as it is${hasOthers ? " (thin: another one)" : ""}`),
      sample("suggestion", "what it may have to be"),
      sample("prediction", "what the detector sees"),
    ),
    howTo(make("p", {},
      "The grey bars beside a picture say where the detector thinks that a side is; the taller the ",
      "more likely, each side by its own scale. ± is their standard deviation in pixels. A suspect ",
      "side has a ⚠ and coloured bars."),
    make("p", {},
      make("b", {}, "Accept"), ": the card is right, the annotations are to change. ",
      make("b", {}, "Reject"), ": they stay as they are. ",
      make("b", {}, "Skip"), ": not sure. The browser keeps the decisions; the button downloads them."),
    make("p", { class: "keys" },
      "Keys: ", key("j"), " ", key("k"), " or arrows: next, previous; ", key("a"), " accept; ",
      key("r"), " reject; ", key("s"), " skip; ", key("u"), " undo.")),
  ];
}

/** A short line as boxes of that role have. */
function roleSample(role) {
  const svg = make("svg", { viewBox: "0 0 34 10", width: 34, height: 10, "aria-hidden": "true" });
  svg.append(...twice(role, "M1 5H33"));
  return svg;
}

function makeBar(save) {
  const text = make("span", { id: "count" });
  const button = make("button", { type: "button", id: "download" }, "Download decisions");
  button.addEventListener("click", save);
  document.getElementById("bar").append(text, button);
  const show = (shown, all, decisions) => {
    const lost = decisions.kept ? "" : " This browser does not keep them: download before you close.";
    text.textContent = `${decisions.byId.size} of ${all} decided, ${shown} shown.${lost}`;
  };
  return { show };
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function makeAuditCard(item) {
  const { finding } = item;
  const name = `${words(finding.kind)}: ${finding.class}`;
  const buttons = Object.entries(DECISIONS).map(([decision, key]) =>
    make("button", { type: "button", value: decision, "aria-keyshortcuts": key },
      decision[0].toUpperCase() + decision.slice(1), " ", make("kbd", { "aria-hidden": "true" }, key)));
  const frame = makeFigure(item);
  const details = make("details", {}, make("summary", {}, "Numbers, in pixels"));
  const element = make("article",
    { class: "card", tabindex: "-1", "data-id": finding.id, "aria-label": `${name}, ${item.title}` },
    make("h2", {}, name, make("span", { class: "score", title: "score" }, finding.score.toFixed(2))),
    make("p", { class: "text" }, finding.text),
    make("p", { class: "file" }, `${item.title}, finding ${finding.id}`),
    frame.figure,
    details,
    make("div", { class: "decide", role: "group", "aria-label": "Decision" }, ...buttons),
  );
  const showDecision = (decision) => {
    element.dataset.decision = decision ?? "open";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.value === decision));
    }
  };
  return { item, element, frame, details, name: `${name}, score ${finding.score.toFixed(2)}.`, showDecision };
}

function drawAuditCard({ item, frame, details }, picture) {
  frame.image.src = picture;
  const found = item.boxes.find((box) => box.p) ?? item.boxes.find((box) => box.stds);
  const others = item.boxes.filter((box) => box !== found);
  const suspects = item.finding.sides;
  if (found) frame.overlay.append(guidePaths(item, found));
  const [meant, ...thin] = annotationsOf(item);
  // The annotation below, so that dashes and dots of the others are seen on it.
  const rank = (box) => ["annotation", "suggestion", "prediction"].indexOf(box.role);
  for (const box of [...item.boxes].sort((a, b) => rank(a) - rank(b))) {
    const corners = cornersOf(item, box);
    const kind = thin.includes(box) ? `${box.role} thin` : box.role;
    frame.overlay.append(...twice(kind, rectanglePath(corners)));
    if (box === meant) {
      for (const name of suspects) {
        const path = sidePath(corners, SIDES.indexOf(name));
        frame.overlay.append(make("path", { class: "suspect-side", d: path }));
      }
    }
  }
  const sides = drawSides(frame, item, found, others, suspects);
  frame.figure.classList.toggle("bare", !sides);
  if (sides && !found.p) frame.figure.after(normalNote());
  const main = found ?? item.boxes[0];
  if (main) details.append(makeTable(main, sides, meant === main ? undefined : meant));
}

/** The one that the finding is about comes first. */
const annotationsOf = (item) => item.boxes.filter((box) => box.role === "annotation");

const normalNote = () =>
  make("p", { class: "normal-note" },
    "Normal distributions of these standard deviations: the distributions themselves are not known.");
