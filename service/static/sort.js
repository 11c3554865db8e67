// A click on a column's head sorts the table by it, and another one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.cells[place].textContent.trim();
      const order = new Intl.Collator(undefined, { numeric: true }).compare;
      const number = row => Number(text(row).replaceAll(",", ""));
      const rows = [...table.tBodies[0].rows];
      const numeric = rows.every(row => text(row) === "" || !Number.isNaN(number(row)));
      rows.sort((one, other) => (numeric ? number(one) - number(other) : order(text(one), text(other))) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
