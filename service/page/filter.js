// The conditions that photos found must meet: rows of field, comparison and value.

// What every index knows of a photo; a collection's own attributes join from the hits seen.
const KINDS = {
  label: "text",
  folder: "text",
  taken_at: "time",
  camera: "text",
  bytes: "number",
  width: "number",
  height: "number",
  format: "text",
};
const ATTRIBUTES = "attributes.";
const TEXT = [
  ["eq", "is"],
  ["not", "is not"],
  ["in", "is one of"],
];
const ORDERED = [
  ["gte", "at least"],
  ["lte", "at most"],
];
const COMPARISONS = {
  text: TEXT,
  number: [...ORDERED, ...TEXT],
  time: [["gte", "from"], ["lte", "until"], ["eq", "in"]],
};
const HINTS = { text: "value", number: "number", time: "2019 or 2019-07-31" };

const rows = document.getElementById("filter-rows");
const template = document.getElementById("condition-template");
const kinds = { ...KINDS };

export function addRow() {
  const row = template.content.firstElementChild.cloneNode(true);
  const field = row.querySelector(".field");
  fillFields(field);
  field.addEventListener("change", () => fillComparisons(row));
  row.querySelector(".remove").addEventListener("click", () => {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (next?.querySelector(".field") ?? document.getElementById("filter-add")).focus();
  });
  rows.append(row);
  fillComparisons(row);
  return row;
}

export function clearRows() {
  rows.replaceChildren();
}

// Learn the collection's own attributes from what its photos carry.
export function learnFields(hits) {
  const before = Object.keys(kinds).length;
  for (const { metadata = {} } of hits) {
    for (const [name, value] of Object.entries(metadata)) {
      const isPlain = ["string", "number"].includes(typeof value);
      if (isPlain && !(name in KINDS)) {
        kinds[ATTRIBUTES + name] ??= typeof value === "number" ? "number" : "text";
      }
    }
  }
  if (Object.keys(kinds).length > before) {
    rows.querySelectorAll(".field").forEach(fillFields);
  }
}

// The `filter` of a search as JSON, or null when no row is filled in.
export function filterJson() {
  const must = [];
  const mustNot = [];
  for (const row of rows.children) {
    const field = row.querySelector(".field").value;
    const comparison = row.querySelector(".comparison").value;
    const text = row.querySelector(".value").value.trim();
    if (text === "") {
      continue;
    }
    if (comparison === "not") {
      mustNot.push({ field, eq: typed(field, text) });
    } else if (comparison === "in") {
      const values = text.split(",").map((each) => each.trim()).filter(Boolean);
      must.push({ field, in: values.map((each) => typed(field, each)) });
    } else {
      must.push({ field, [comparison]: typed(field, text) });
    }
  }
  const filter = {};
  if (must.length > 0) {
    filter.must = must;
  }
  if (mustNot.length > 0) {
    filter.must_not = mustNot;
  }
  return must.length + mustNot.length === 0 ? null : JSON.stringify(filter);
}

export function countConditions() {
  return [...rows.querySelectorAll(".value")].filter((each) => each.value.trim()).length;
}

// Whatever is no number stays text, for the service to refuse in its own words.
function typed(field, text) {
  const number = Number(text);
  return kinds[field] === "number" && Number.isFinite(number) ? number : text;
}

function fillFields(select) {
  const chosen = select.value;
  select.replaceChildren(
    ...Object.keys(kinds).map((name) => {
      const label = name.startsWith(ATTRIBUTES) ? name.slice(ATTRIBUTES.length) : name;
      return new Option(label.replace("_", " "), name);
    }),
  );
  select.value = chosen || "label";
}

function fillComparisons(row) {
  const kind = kinds[row.querySelector(".field").value];
  const select = row.querySelector(".comparison");
  select.replaceChildren(...COMPARISONS[kind].map(([name, label]) => new Option(label, name)));
  row.querySelector(".value").placeholder = HINTS[kind];
  row.querySelector(".value").inputMode = kind === "number" ? "decimal" : "text";
}
