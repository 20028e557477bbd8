"use strict";
// Sorts and filters the table of lesions. Without it the page says the same, in one order.
(() => {
  const table = document.getElementById("lesion-table");
  if (!table) return;
  document.documentElement.classList.add("has-script");

  const body = table.tBodies[0];
  const headers = Array.from(table.tHead.rows[0].cells);
  const filter = document.getElementById("filter");
  const state = document.getElementById("state");
  const shown = document.getElementById("shown");
  const byName = new Intl.Collator("en", { numeric: true }).compare;
  const total = body.rows.length;

  const words = (row) => {
    const titles = Array.from(row.querySelectorAll("[title]"), (cut) => cut.title);
    return [row.textContent, ...titles].join(" ").toLowerCase();
  };
  const rows = Array.from(body.rows, (row) => ({
    row,
    card: document.getElementById("lesion-" + row.dataset.number),
    number: Number(row.dataset.number),
    state: row.dataset.state,
    words: words(row),
  }));

  // A cell's key is a number, its text, or null where it has nothing; that is last either way.
  const keyOf = (cell) => {
    if (cell.classList.contains("nothing")) return null;
    return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : byName(a, b));

  const sort = (column, descending) => {
    const sign = descending ? -1 : 1;
    const keyed = rows.map((item) => ({ item, key: keyOf(item.row.cells[column]) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * compare(a.key, b.key) || a.item.number - b.item.number;
    });
    const sorted = document.createDocumentFragment();
    for (const { item } of keyed) sorted.append(item.row);
    body.append(sorted);
    headers.forEach((header, index) => {
      const order = descending ? "descending" : "ascending";
      header.setAttribute("aria-sort", index === column ? order : "none");
    });
  };

  // #sort=volume and #sort=-volume: a sorted table is a link, and so testable.
  const sortByAddress = () => {
    const match = /^#sort=(-?)([\w-]+)$/.exec(location.hash);
    const column = match ? headers.findIndex((header) => header.dataset.key === match[2]) : -1;
    if (column >= 0) sort(column, match[1] === "-");
  };

  const applyFilter = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const item of rows) {
      const fits =
        (!state.value || item.state === state.value) &&
        wanted.every((word) => item.words.includes(word));
      item.row.hidden = !fits;
      if (item.card) item.card.hidden = !fits;
      n += fits;
    }
    const all = total === 1 ? "1 lesion" : total + " lesions";
    shown.textContent = n === total ? all : n + " of " + all;
  };

  headers.forEach((header, index) => {
    header.querySelector("button").addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      sort(index, descending);
      history.replaceState(null, "", "#sort=" + (descending ? "-" : "") + header.dataset.key);
    });
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    const isSelecting = String(getSelection()) !== "";
    if (!row || isSelecting || event.target.closest("a")) return;
    row.querySelector("a").click();
  });
  filter.addEventListener("input", applyFilter);
  state.addEventListener("change", applyFilter);
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", sortByAddress);
  applyFilter(); // a browser may bring back what was typed before
  sortByAddress();
})();
