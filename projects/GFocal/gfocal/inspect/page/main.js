// Reads what the page holds. Pictures stay text until their card comes near the window.

function main() {
  const about = JSON.parse(document.getElementById("about").textContent);
  const items = [...document.querySelectorAll("script.item")].map((x) => JSON.parse(x.textContent));
  const pictures = [...document.querySelectorAll("script.picture")];
  if (!items.length) {
    document.getElementById("sheet").append(make("p", { class: "nothing" }, "There is nothing to show."));
  } else if (items[0].finding) {
    showAudit(about, items, pictures);
  } else {
    showPredictions(about, items, pictures);
  }
}

main();
