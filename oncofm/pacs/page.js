"use strict";
// Asks for the page again and changes what has changed; without it the browser loads it anew.
(() => {
  const EVERY_MS = 5000;
  const parts = () => Array.from(document.querySelectorAll("#version, #time, #state, section"));

  const show = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (parts().some((part) => !fresh.getElementById(part.id))) throw new Error("another page");
    document.title = fresh.title;
    for (const part of parts()) {
      const next = fresh.getElementById(part.id);
      if (next.outerHTML !== part.outerHTML) part.replaceWith(document.adoptNode(next));
    }
  };

  const refresh = async () => {
    const isSelecting = String(getSelection()) !== ""; // somebody copies a UID
    if (!document.hidden && !isSelecting) {
      let isLost = false;
      try {
        const answer = await fetch(location.href, { cache: "no-store" });
        if (!answer.ok) throw new Error(answer.status);
        show(await answer.text());
      } catch {
        isLost = true;
      }
      document.getElementById("lost").hidden = !isLost;
      document.documentElement.classList.toggle("lost", isLost);
    }
    setTimeout(refresh, EVERY_MS);
  };
  setTimeout(refresh, EVERY_MS);
})();
