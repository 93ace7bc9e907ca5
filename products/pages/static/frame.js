// Tells the page that embeds this one how high it is. The height is no secret, so it is sent to whatever origin embeds it:
// which origins may do so, the Content-Security-Policy of the page says (frame-ancestors).
(() => {
  "use strict";
  if (window.parent === window) return;
  const tell = () =>
    window.parent.postMessage({ type: "spine:height", height: Math.ceil(document.body.getBoundingClientRect().height) }, "*");
  new ResizeObserver(tell).observe(document.body);
  window.addEventListener("load", tell);
})();
