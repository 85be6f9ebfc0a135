/**
 * A hub on loopback: the endpoints that pulling and pushing a model need, as the Hugging Face Hub answers them. Large
 * files come from a store at another address, which must not see the token.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
export const gitSha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

export interface FakeRepo {
  isPrivate: boolean;
  isGated: boolean;
  /** Commits by branch. */
  branches: Record<string, string>;
  /** Files by commit. */
  commits: Record<string, Record<string, Buffer>>;
}

/** What goes wrong with one request: another answer, a body that is cut off or comes no further, or other bytes. */
export type Fault =
  | { status: number; headers?: Record<string, string>; body?: string }
  | { cutAt: number }
  | { stallAt: number }
  | { bytes: Buffer };

export interface FakeHub {
  readonly url: string;
  /** "METHOD /path", with " RANGE" where a part was asked for. */
  readonly requests: string[];
  readonly repos: Record<string, FakeRepo>;
  /** Tokens that may read what is gated or private, and write. */
  readonly tokens: Set<string>;
  /** Size of what the tree lists, where it is not the file's. */
  readonly listedSizes: Record<string, number>;
  /** How large files are uploaded: at once, in parts of so many bytes, or by the chunks of Xet (which are not kept). */
  uploads: "whole" | "xet" | number;
  fault: (request: string) => Fault | undefined;
  addModel(repo: string, files: Record<string, Buffer | string>): string;
  close(): Promise<void>;
}

const isLarge = (name: string, bytes: Uint8Array) => /\.(safetensors|gguf|bin)$/.test(name) || bytes.length > 1e6;

export async function startHub(): Promise<FakeHub> {
  const store = new Map<string, Buffer>();
  const hub = {
    repos: {},
    requests: [],
    tokens: new Set(["hf_good"]),
    listedSizes: {},
    uploads: "whole",
    fault: () => undefined,
  } as unknown as {
    -readonly [K in keyof FakeHub]: FakeHub[K];
  };
  const answering = (
    answer: (request: IncomingMessage, path: string, body: Buffer, response: ServerResponse) => void,
  ) =>
    createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        const path = decodeURIComponent(request.url!.split("?")[0]!);
        const range = request.headers.range;
        const line = `${request.method} ${path}${range ? ` ${range}` : ""}`;
        hub.requests.push(line);
        const fault = hub.fault(line);
        if (fault === undefined) answer(request, path, Buffer.concat(parts), response);
        else if ("status" in fault) response.writeHead(fault.status, fault.headers).end(fault.body ?? "");
        else sendBytes(request, response, "bytes" in fault ? fault.bytes : store.get(path.slice(1))!, fault);
      });
    });

  const large = answering((request, path, body, response) => {
    const authorization = path.startsWith("/v1/") ? "Bearer of-the-store" : undefined;
    if (request.headers.authorization !== authorization) return void response.writeHead(400).end("a token went astray");
    if (path.startsWith("/v1/chunks")) return void response.writeHead(404).end();
    if (path.startsWith("/v1/")) return void response.end("{}");
    const oid = path.slice(1);
    if (request.method === "PUT") {
      if (request.headers["content-length"] !== `${body.length}`) return void response.writeHead(411).end();
      store.set(oid, body);
      return void response.writeHead(200, { etag: sha256(body) }).end();
    }
    const bytes = store.get(oid);
    return bytes ? sendBytes(request, response, bytes) : void response.writeHead(404).end();
  });
  const largeUrl = (await listen(large)).replace("127.0.0.1", "localhost");

  const uploadOf = (repo: string, { oid, size }: { oid: string; size: number }) => {
    if (hub.uploads === "whole") return { href: `${largeUrl}/${oid}` };
    if (hub.uploads === "xet") {
      const header = {
        "X-Xet-Cas-Url": largeUrl,
        "X-Xet-Access-Token": "of-the-store",
        "X-Xet-Token-Expiration": "9999999999",
      };
      return { href: `${hub.url}/api/models/${repo}/xet-write-token/main`, header };
    }
    const parts = Array.from({ length: Math.ceil(size / hub.uploads) }, (_, i) => [
      `${i + 1}`.padStart(5, "0"),
      `${largeUrl}/${oid}/${i + 1}`,
    ]);
    return {
      href: `${hub.url}/${repo}/complete`,
      header: { chunk_size: `${hub.uploads}`, ...Object.fromEntries(parts) },
    };
  };

  const main = answering((request, path, body, response) => {
    const token = request.headers.authorization?.replace("Bearer ", "");
    const isTrusted = token !== undefined && hub.tokens.has(token);
    const json = (value: unknown) =>
      void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    const refuse = (status: number, code?: string, message = "no") =>
      void response.writeHead(status, { ...(code && { "x-error-code": code }), "x-error-message": message }).end();

    if (token !== undefined && !isTrusted && !token.startsWith("hf_other"))
      return refuse(401, undefined, "Invalid credentials in Authorization header");
    if (path === "/api/repos/create") {
      if (!isTrusted) return refuse(403, undefined, "You have no rights here");
      const { name, organization, visibility } = JSON.parse(`${body}`) as Record<string, string>;
      const repo = `${organization}/${name}`;
      if (repo in hub.repos) return refuse(409);
      hub.repos[repo] = {
        isPrivate: visibility === "private",
        isGated: false,
        branches: { main: commitOf("") },
        commits: { [commitOf("")]: {} },
      };
      return json({ url: `${hub.url}/${repo}`, id: "1" });
    }
    const [, repo, rest] = /^(?:\/api\/models)?\/([^/]+\/[^/]+?)(?:\.git)?(\/.*)?$/.exec(path) ?? [];
    const found = repo === undefined ? undefined : hub.repos[repo];
    if (repo === undefined || found === undefined || (found.isPrivate && !isTrusted)) {
      return refuse(isTrusted ? 404 : 401, isTrusted ? "RepoNotFound" : undefined, "Repository not found");
    }
    const [, action, revision = "HEAD", file] =
      /^\/([a-z-]+)\/?((?:refs\/pr\/\d+)|[^/]+)?(?:\/(.*))?$/.exec(rest ?? "/revision") ?? [];
    const branch = revision === "HEAD" ? "main" : revision;

    if (action === "branch") {
      if (branch in found.branches) return refuse(409);
      found.branches[branch] = found.branches.main!;
      return json({});
    }
    if (action === "preupload") {
      const { files } = JSON.parse(`${body}`) as { files: { path: string; size: number }[] };
      return json({
        files: files.map(({ path, size }) => ({
          path,
          uploadMode: isLarge(path, { length: size } as Uint8Array) ? "lfs" : "regular",
        })),
      });
    }
    if (action === "info") {
      const { objects } = JSON.parse(`${body}`) as { objects: { oid: string; size: number }[] };
      const withActions = objects.map((object) =>
        store.has(object.oid) ? object : { ...object, actions: { upload: uploadOf(repo, object) } },
      );
      return json({ transfer: hub.uploads === "xet" ? "xet" : "basic", objects: withActions });
    }
    if (action === "complete") {
      const { oid, parts } = JSON.parse(`${body}`) as { oid: string; parts: { partNumber: number; etag: string }[] };
      const bytes = parts.map(({ partNumber }) => store.get(`${oid}/${partNumber}`)!);
      if (parts.some(({ etag }, i) => etag !== sha256(bytes[i]!))) return refuse(400);
      store.set(oid, Buffer.concat(bytes));
      return json({});
    }
    const commit = branch in found.branches ? found.branches[branch]! : branch;
    const files = found.commits[commit];
    if (files === undefined) return refuse(404, "RevisionNotFound", `Invalid rev id: ${branch}`);
    if (action === "commit") {
      if (!isTrusted) return refuse(403);
      const lines = `${body}`
        .split("\n")
        .map((line) => JSON.parse(line) as { key: string; value: Record<string, string> });
      const next = { ...files };
      for (const { key, value } of lines) {
        if (key === "file") next[value.path!] = Buffer.from(value.content!, "base64");
        if (key === "lfsFile") next[value.path!] = store.get(value.oid!) ?? Buffer.of();
      }
      const oid = commitOf(`${body}${commit}`);
      found.commits[oid] = next;
      found.branches[branch] = oid;
      return json({ commitOid: oid, commitUrl: `${hub.url}/${repo}/commit/${oid}` });
    }
    if (action === "revision") {
      return json({
        _id: "1",
        id: repo,
        sha: commit,
        private: found.isPrivate,
        gated: found.isGated && "manual",
        lastModified: "2024-06-27T00:00:00Z",
        siblings: Object.keys(files).map((rfilename) => ({ rfilename })),
      });
    }
    if (action === "tree") {
      return json(
        Object.entries(files).map(([path, bytes]) => {
          const size = hub.listedSizes[path] ?? bytes.length;
          const lfs = isLarge(path, bytes) ? { lfs: { oid: sha256(bytes), size, pointerSize: 134 } } : {};
          return { type: "file", path, size, oid: gitSha1(bytes), ...lfs };
        }),
      );
    }
    if (action !== "resolve") return refuse(404);
    if (found.isGated && !isTrusted)
      return refuse(token === undefined ? 401 : 403, "GatedRepo", "Access to model is restricted");
    const bytes = files[file ?? ""];
    if (bytes === undefined) return refuse(404, "EntryNotFound");
    response.setHeader("x-repo-commit", commit);
    if (!isLarge(file!, bytes)) {
      response.setHeader("etag", `"${gitSha1(bytes)}"`);
      return sendBytes(request, response, bytes);
    }
    response.writeHead(302, {
      location: `${largeUrl}/${sha256(bytes)}`,
      "x-linked-etag": `"${sha256(bytes)}"`,
      "x-linked-size": `${bytes.length}`,
    });
    return void response.end();
  });
  hub.url = await listen(main);
  hub.addModel = (repo, given) => {
    const files = Object.fromEntries(
      Object.entries(given).map(([name, content]) => [name, Buffer.from(content as string)]),
    );
    for (const bytes of Object.values(files)) store.set(sha256(bytes), bytes);
    const commit = commitOf(repo + Object.values(files).map(sha256).join());
    const known = hub.repos[repo] ?? { isPrivate: false, isGated: false, branches: {}, commits: {} };
    hub.repos[repo] = known;
    known.commits[commit] = files;
    known.branches.main = commit;
    return commit;
  };
  hub.close = async () => {
    for (const server of [main, large]) {
      server.closeAllConnections();
      server.close();
    }
  };
  return hub;
}

const commitOf = (text: string): string => createHash("sha1").update(text).digest("hex");

async function listen(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A file or the part that was asked for, up to where the fault is. */
function sendBytes(request: IncomingMessage, response: ServerResponse, bytes: Buffer, fault?: Fault): void {
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const part = bytes.subarray(start);
  const range = start > 0 ? { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
  response.writeHead(start > 0 ? 206 : 200, { "content-length": part.length, ...range });
  if (fault !== undefined && "stallAt" in fault) return void response.write(part.subarray(0, fault.stallAt - start));
  if (fault === undefined || !("cutAt" in fault)) return void response.end(part);
  response.write(part.subarray(0, fault.cutAt - start), () => setTimeout(() => response.destroy(), 20));
}
