// A hub that is reached through the proxy which the environment names.
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { expect, test } from "vitest";
import { modelName } from "../../hub/name.js";
import { pullModel } from "../../hub/pull.js";
import { SMALL_FILES, settingsOf, weights } from "./hub-folder.js";
import { startHub } from "./server.js";

test("HTTP_PROXY: all that is not in NO_PROXY goes through it", async () => {
  const hub = await startHub();
  hub.addModel("org/behind", { ...SMALL_FILES, "model.safetensors": weights(1000) });
  const tunnels: string[] = [];
  const proxy = createServer().on("connect", (request, client) => {
    tunnels.push(request.url!);
    const server = connect(Number(new URL(hub.url).port), "127.0.0.1", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      server.pipe(client).pipe(server);
    });
    server.on("error", () => client.destroy());
    client.on("error", () => server.destroy());
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  process.env.HTTP_PROXY = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const settings = settingsOf(hub, { endpoint: "http://hub.invalid" });
  expect(await pullModel(modelName("org/behind"), { settings, firstWaitMs: 1 })).toContain("models--org--behind");
  expect(new Set(tunnels)).toEqual(new Set(["hub.invalid:80"]));
  proxy.close();
  await hub.close();
});
