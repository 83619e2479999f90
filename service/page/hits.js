// The list of hits: thumbnail, rank, cosine and name, each a button that searches from it.

import { showImage } from "/page/service.js";

const NUM_PLACEHOLDERS = 8;

const results = document.getElementById("results");
const template = document.getElementById("hit-template");

export function fileNameOf(uri) {
  return uri.split("/").pop();
}

export function counted(duplicates) {
  return `${duplicates} near-duplicate${duplicates === 1 ? "" : "s"}`;
}

// 01.jpg alone lies in many folders.
function folderOf(uri) {
  return uri.split("/").at(-2) ?? "";
}

export function showHits(hits, onChosen) {
  const hadFocus = results.contains(document.activeElement);
  results.replaceChildren(...hits.map((hit) => hitElement(hit, onChosen)));
  if (hadFocus) {
    results.focus({ preventScroll: true }); // else the keyboard starts over at the top
  }
}

// Put the next hits below, and give the button of the first. One that is there already stays where
// it is: deeper pages look at more candidates, and may move a hit behind the end of the page before.
export function appendHits(hits, onChosen) {
  const known = new Set([...results.children].map((item) => item.dataset.id));
  const items = hits.filter(({ id }) => !known.has(id)).map((hit) => hitElement(hit, onChosen));
  results.append(...items);
  return items[0]?.querySelector("button");
}

export function showPlaceholders() {
  if (results.children.length === 0) {
    results.replaceChildren(...Array.from({ length: NUM_PLACEHOLDERS }, placeholder));
  }
}

export function clearHits() {
  results.replaceChildren();
}

function hitElement(hit, onChosen) {
  const item = template.content.firstElementChild.cloneNode(true);
  const name = fileNameOf(hit.uri);
  const folder = folderOf(hit.uri);
  const score = hit.score.toFixed(4);
  const others = hit.collapsed ? ` with ${counted(hit.collapsed)}` : "";
  item.dataset.id = hit.id;
  const image = item.querySelector("img");
  image.addEventListener("error", () => item.classList.add("gone"));
  showImage(image, hit.thumbnail_url);
  item.querySelector(".rank").textContent = `#${hit.rank}`;
  item.querySelector(".score").textContent = score;
  item.querySelector(".collapsed").textContent = hit.collapsed ? `+${hit.collapsed}` : "";
  item.querySelector(".name").textContent = name;
  item.querySelector(".folder").textContent = folder;
  const button = item.querySelector("button");
  button.title = hit.uri;
  button.setAttribute(
    "aria-label",
    `Rank ${hit.rank}, cosine ${score}, ${[name, folder].filter(Boolean).join(" in ")}${others}. ` +
      "Search from this photo.",
  );
  button.addEventListener("click", () => onChosen(hit));
  return item;
}

function placeholder() {
  const item = template.content.firstElementChild.cloneNode(true);
  item.classList.add("waiting");
  item.setAttribute("aria-hidden", "true");
  item.querySelector("button").disabled = true;
  item.querySelector("img").remove();
  item.querySelector(".name").textContent = "\u00a0";
  return item;
}
