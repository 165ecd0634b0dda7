"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (preferred.matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  preferred.addEventListener("change", label);
  label();

  // What stands under the pointer, or under the arrow keys.
  for (const plot of document.querySelectorAll(".plot[data-spots]")) {
    const places = plot.dataset.spots.split(",").map(Number);
    const texts = JSON.parse(plot.querySelector("script").textContent);
    const cursor = plot.querySelector(".cursor"), tip = plot.querySelector(".tip");
    let current = -1;
    const show = (i) => {
      current = Math.max(0, Math.min(places.length - 1, i));
      cursor.hidden = tip.hidden = false;
      cursor.style.left = `${places[current]}%`;
      tip.textContent = texts[current];
      const room = plot.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(room, places[current] / 100 * plot.clientWidth - tip.offsetWidth / 2))}px`;
    };
    const hide = () => { cursor.hidden = tip.hidden = true; };
    const nearest = (share) => places.reduce((best, p, i) => Math.abs(p - share) < Math.abs(places[best] - share) ? i : best, 0);
    tip.setAttribute("role", "status");
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", "Values of the chart: left and right arrow keys");
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(nearest((event.clientX - box.left) / box.width * 100));
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show(current < 0 ? Math.floor(places.length / 2) : current + step);
    });
  }

  // The section in view is marked in the contents.
  const links = new Map([...document.querySelectorAll(".contents a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));
})();
