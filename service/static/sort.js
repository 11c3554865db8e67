// Sort a table by the clicked column header; a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((header, index) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const text = row => row.cells[index].dataset.sort ?? row.cells[index].textContent.trim();
      const number = row => Number(text(row).replaceAll(",", ""));
      const compareTexts = new Intl.Collator(undefined, { numeric: true }).compare;
      const rows = [...table.tBodies[0].rows];
      const isNumeric = rows.every(row => text(row) === "" || !Number.isNaN(number(row)));
      rows.sort((a, b) => (isNumeric ? number(a) - number(b) : compareTexts(text(a), text(b))) * (descending ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
