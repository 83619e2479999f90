// Below the hits: a button that brings the next ones, and a line that says why there is none.

const byId = (id) => document.getElementById(id);
const button = byId("more-button");

export function listenForMore(onMore) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") {
      onMore();
    }
  });
}

export function isMoreFocused() {
  return document.activeElement === button;
}

export function hideMore() {
  byId("more").hidden = true;
}

// Not `disabled`: that would take the focus away from who pressed it.
export function showMoreLoading() {
  button.setAttribute("aria-disabled", "true");
  button.textContent = "Searching";
  byId("more-trouble").hidden = true;
}

// The button, or else `note`, or nothing where that is empty.
export function offerMore(hasMore, note = "") {
  byId("more").hidden = !hasMore && note === "";
  byId("more-trouble").hidden = true;
  button.hidden = !hasMore;
  settle();
  byId("more-note").textContent = hasMore ? "" : note;
}

// What has been found stays, and the button to try again.
export function showMoreTrouble({ title, message }) {
  byId("more-trouble").textContent = `${title ?? "Something went wrong on this page"}: ${message}`;
  byId("more-trouble").hidden = false;
  settle();
}

function settle() {
  button.setAttribute("aria-disabled", "false");
  button.textContent = "Show more";
}
