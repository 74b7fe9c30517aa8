// SPDX-License-Identifier: GPL-2.0-or-later
"use strict";
const form = document.getElementById("filter");
const search = form.querySelector('input[type="search"]');
const boxes = [...form.querySelectorAll('input[type="checkbox"]')];
const components = [...document.querySelectorAll(".component")];
const entries = [...document.querySelectorAll("#entries .entry")];
const texts = new Map();

function text(element) {
  if (!texts.has(element)) texts.set(element, element.textContent.toLowerCase());
  return texts.get(element);
}

function apply() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const matches = (element) => words.every((word) => text(element).includes(word));
  let shown = 0;
  for (const item of components) {
    item.hidden = !wanted.has(item.dataset.decision) || !matches(item);
    shown += !item.hidden;
  }
  for (const item of entries) item.hidden = !matches(item);
  document.getElementById("count").textContent = `${shown} of ${components.length} components`;
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", apply);
apply();
