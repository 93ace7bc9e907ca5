// Embeds a support form or a booking page where this script stands:
//   <script src="https://api.example.com/embed.js" data-form="help" async></script>
//   <script src="https://api.example.com/embed.js" data-page="salon" async></script>
// data-title names the frame for screen readers. Without JavaScript, an iframe of the page's own address does the same.
(() => {
  "use strict";
  const script = document.currentScript;
  if (!script) return;
  const origin = new URL(script.src).origin;
  const { form, page, title } = script.dataset;
  const slug = form || page;
  if (!slug) {
    console.error("spine: embed.js needs data-form or data-page with a slug");
    return;
  }
  const frame = document.createElement("iframe");
  frame.src = `${origin}/${form ? "f" : "b"}/${encodeURIComponent(slug)}`;
  frame.title = title || (form ? "Support form" : "Booking page");
  frame.loading = "lazy";
  frame.style.cssText = "display:block;width:100%;height:640px;border:0";
  script.after(frame);
  window.addEventListener("message", (event) => {
    // Only the embedded page itself may set the height of its frame, and only to a sensible number.
    if (event.origin !== origin || event.source !== frame.contentWindow) return;
    const data = event.data;
    if (!data || data.type !== "spine:height" || !Number.isFinite(data.height)) return;
    frame.style.height = `${Math.min(Math.max(data.height, 100), 20000)}px`;
  });
})();
