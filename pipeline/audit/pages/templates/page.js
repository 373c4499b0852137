"use strict";
(() => {
  const announce = (text) => { document.getElementById("announcer").textContent = text; };

  // ---- Sorting: click a heading. Rows without a value come last in both directions.

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };

  const sortRows = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => ({ row, key: keyOf(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * (typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key));
    });
    body.append(...keyed.map(({ row }) => row));
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      if (heading.hasAttribute("aria-sort")) heading.setAttribute("aria-sort", index === column ? direction : "none");
    });
    const name = table.tHead.rows[0].cells[column].textContent.trim();
    announce(`sorted by ${name}, ${direction}`);
  };

  document.querySelectorAll("th[aria-sort] button").forEach((button) => {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const other = { ascending: "descending", descending: "ascending" };
      const direction = other[heading.getAttribute("aria-sort")] ?? button.dataset.first;
      sortRows(heading.closest("table"), heading.cellIndex, direction);
    });
  });

  // ---- Filtering: a row must contain all words, and belong to the chosen group of pairs.

  const applyFilter = (toolbar) => {
    const table = document.getElementById(toolbar.dataset.for);
    const words = toolbar.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const choice = toolbar.querySelector("select").value;
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.dataset.text.toLowerCase();
      const chosen = choice === "" || row.dataset.groups.split(" ").includes(choice);
      row.hidden = !(chosen && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    toolbar.querySelector("output").textContent = `${shown} of ${table.tBodies[0].rows.length} pairs`;
  };

  document.querySelectorAll(".toolbar").forEach((toolbar) => {
    toolbar.querySelector("input").addEventListener("input", () => applyFilter(toolbar));
    const select = toolbar.querySelector("select");
    select.addEventListener("change", () => {
      applyFilter(toolbar);
      const { column, direction } = select.selectedOptions[0].dataset;
      if (column === undefined) return;
      const table = document.getElementById(toolbar.dataset.for);
      const index = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim() === column);
      sortRows(table, index, direction);
    });
    applyFilter(toolbar);
  });

  // A link to a pair must reach it even if the filter hides it.
  const reveal = () => {
    const row = document.getElementById(location.hash.slice(1));
    if (!row?.hidden) return;
    const toolbar = document.querySelector(`.toolbar[data-for="${row.closest("table").id}"]`);
    toolbar.querySelector("input").value = "";
    toolbar.querySelector("select").value = "";
    applyFilter(toolbar);
    row.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);

  // ---- Copying.

  const copyText = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page opened from a disk may not be allowed to use the Clipboard API.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    announce(`copied ${what}`);
  };

  const cellText = (cell) => cell.dataset.value ?? cell.dataset.copy ?? cell.textContent.trim().replace(/\s+/g, " ");

  const tableText = (table) =>
    [...table.rows]
      .filter((row) => !row.hidden)
      .map((row) => [...row.cells].filter((cell) => !("nocopy" in cell.dataset)).map(cellText).join("\t"))
      .join("\n");

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copyTable) copyText(tableText(document.getElementById(button.dataset.copyTable)), "the table");
    else if (button.dataset.copy !== undefined) copyText(button.dataset.copy, "the value");
    else return;
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
  });

  // ---- The pictures of a pair, enlarged.

  const viewer = document.getElementById("viewer");
  let current = null;

  const show = (row) => {
    current = row;
    document.getElementById("viewer-title").textContent = row.dataset.title;
    const copies = [...row.querySelectorAll(".pictures")].map((pictures) => pictures.cloneNode(true));
    copies.forEach((copy) => copy.querySelectorAll("button").forEach((button) => button.replaceWith(...button.childNodes)));
    document.getElementById("viewer-pictures").replaceChildren(...copies);
    if (!viewer.open) viewer.showModal();
  };

  const step = (by) => {
    const rows = [...current.parentNode.rows].filter((row) => !row.hidden && row.querySelector(".thumb"));
    show(rows[(rows.indexOf(current) + by + rows.length) % rows.length]);
  };

  document.querySelectorAll(".thumb").forEach((button) => {
    button.addEventListener("click", () => show(button.closest("tr")));
  });
  viewer.querySelectorAll("[data-step]").forEach((button) => {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
