"use strict";
// Shows the cards that meet every choice of the form. A card may hold several rows, one line of `data-` each.
const form = document.querySelector("form.filters");
if (form) {
  const cards = Array.from(document.querySelectorAll("[data-rows]"), (card) => ({
    card,
    rows: JSON.parse(card.dataset.rows),
    text: card.textContent.toLowerCase(),
  }));
  const choices = Array.from(form.querySelectorAll("select"));
  const apply = () => {
    const wanted = choices.filter((choice) => choice.value);
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { card, rows, text } of cards) {
      const fits = rows.some((row) => wanted.every((choice) => row[choice.name].includes(choice.value)));
      card.hidden = !(fits && words.every((word) => text.includes(word)));
      shown += card.hidden ? 0 : 1;
    }
    form.querySelector("output").value = `${shown} of ${cards.length} shown`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
