// --- the program behind the page

async function send(request) {
  try {
    return await (await fetch("/ask", { method: "POST", body: JSON.stringify(request) })).json();
  } catch { end("The program does not answer any more."); }
}

function end(text) {
  find("ended").style.display = "block";
  find("ended").textContent ||= `Ended. ${text}`;
  for (const each of document.querySelectorAll("button, input, select")) each.disabled = true;
}
const news = new EventSource("/news");
news.addEventListener("end", event => { news.close(); end(event.data); });
news.onerror = () => { news.close(); end("The connection to the program is lost."); };
