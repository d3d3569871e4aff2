"use strict";
(function () {
  const texts = JSON.parse(document.getElementById("marks").textContent);
  const tip = document.getElementById("tip");
  let active = null;

  function hide() {
    if (active) active.classList.remove("active");
    active = null;
    tip.hidden = true;
  }

  function show(mark, text) {
    hide();
    active = mark;
    mark.classList.add("active");
    tip.textContent = text;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - size.width - 4;
    const above = at.top - size.height - 8;
    tip.style.left = Math.max(4, Math.min(right, at.left + at.width / 2 - size.width / 2)) + "px";
    tip.style.top = (above >= 4 ? above : Math.min(at.bottom + 8, window.innerHeight - size.height - 4)) + "px";
  }

  // A curve has one element a point, anything else is a mark as a whole.
  function marksOf(group, count) {
    const points = Array.from(group.querySelectorAll("use"));
    return points.length === count ? points : [group];
  }

  for (const id of Object.keys(texts)) {
    const group = document.getElementById(id);
    if (!group) continue;
    const said = texts[id];
    const marks = marksOf(group, said.length);
    let place = 0;
    const here = () => {
      group.setAttribute("aria-label", said[place]);
      show(marks[place], said[place]);
    };
    marks.forEach((mark, n) => {
      mark.addEventListener("mouseenter", () => show(mark, said[n]));
      mark.addEventListener("mouseleave", hide);
      mark.addEventListener("click", () => show(mark, said[n]));
    });
    group.closest("svg").setAttribute("role", "group");
    group.setAttribute("data-mark", "");
    group.setAttribute("tabindex", "0");
    group.setAttribute("role", "img");
    group.setAttribute("aria-label", said[0] + (marks.length > 1 ? " (arrow keys: further points)" : ""));
    group.addEventListener("focus", here);
    group.addEventListener("blur", hide);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step || marks.length < 2) return;
      event.preventDefault();
      place = (place + step + marks.length) % marks.length;
      here();
    });
  }
  window.addEventListener("scroll", hide, { passive: true });

  // Paper cannot be clicked: what is folded is unfolded for it, and folded again.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
  // A link to folded data unfolds it.
  const unfold = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  window.addEventListener("hashchange", unfold);
  unfold();
})();
