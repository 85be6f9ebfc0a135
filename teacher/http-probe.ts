/** Which model answers at an address, and whether a student can learn from it. */
import { type CallOptions, call, parseJson, TeacherError } from "./http-call.js";

/** What the student's token ids mean: see tokenizerSha256 in tokenizer-hash.ts. null: it has no tokenizer. */
export type Student = { vocabSize: number; tokenizerSha256: string | null };

/** Accepts http://host:port with or without a slash or /v1 at the end. */
export function parseBaseUrl(url: string): string {
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new TeacherError(`teacher address "${url}": expected a URL such as http://localhost:8000`);
  }
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`.replace(/\/+$/, "").replace(/\/v1$/, "");
}

/** data[0] of /v1/models; the last two are heddle's own. */
export type WireModel = { id: string; owned_by?: string; vocab_size?: number; tokenizer_sha256?: string };

/** Waits until the server is healthy and asks what it serves. */
export async function probe(baseUrl: string, options: CallOptions, signal: AbortSignal): Promise<WireModel> {
  try {
    await call("GET", `${baseUrl}/health`, undefined, options, signal);
  } catch (error) {
    // A proxy in front of the server may have no such route.
    if (!(error instanceof TeacherError && error.status === 404)) throw error;
  }
  const answer = parseJson(await call("GET", `${baseUrl}/v1/models`, undefined, options, signal), baseUrl);
  const model = (answer as { data?: WireModel[] }).data?.[0];
  if (typeof model?.id !== "string") {
    throw new TeacherError(`${baseUrl}/v1/models: expected {"data": [{"id": ...}]}, got no model`);
  }
  return model;
}

/** Throws when the server reports a vocabulary or a tokenizer, as heddle does, and it is not the student's. */
export function checkStudent(baseUrl: string, model: WireModel, student: Student | undefined): void {
  if (!student) return;
  const need = "Student and teacher must share token ids: use a teacher of the student's family";
  if (model.vocab_size !== undefined && model.vocab_size !== student.vocabSize) {
    throw new TeacherError(
      `${baseUrl}: ${model.id} has a vocabulary of ${model.vocab_size}, the student one of ${student.vocabSize}. ${need}`,
    );
  }
  const [ours, theirs] = [student.tokenizerSha256, model.tokenizer_sha256];
  if (ours !== null && theirs !== undefined && theirs !== ours) {
    const short = (sha256: string) => sha256.slice(0, 12);
    throw new TeacherError(
      `${baseUrl}: ${model.id} has another tokenizer (sha256 ${short(theirs)}...) than the student ` +
        `(${short(ours)}...). ${need}`,
    );
  }
}

/** heddle's own server leaves out what is before `from`; vLLM sends every position of the prompt. */
export const isHeddle = (model: WireModel) => model.owned_by === "heddle";
