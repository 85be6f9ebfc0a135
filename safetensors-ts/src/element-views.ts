// Bytes seen as elements. Typed arrays have the byte order of the machine: little endian wherever Node and browsers run.

interface ViewConstructor<T> {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}

/** The bytes as elements of a typed array, to read: a view where the address is aligned, otherwise of a copy. */
export function elementsOf<T>(type: ViewConstructor<T>, data: Uint8Array): T {
  const aligned = isAligned(type, data) ? data : new Uint8Array(data);
  return viewOf(type, aligned);
}

/** Lets `fill` write the elements of `bytes`: in place where the address is aligned, otherwise by way of a copy. */
export function fillElements<T>(type: ViewConstructor<T>, bytes: Uint8Array, fill: (elements: T) => void): void {
  const aligned = isAligned(type, bytes) ? bytes : new Uint8Array(bytes.length);
  fill(viewOf(type, aligned));
  if (aligned !== bytes) bytes.set(aligned);
}

export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

const isAligned = (type: ViewConstructor<unknown>, data: Uint8Array) => data.byteOffset % type.BYTES_PER_ELEMENT === 0;

const viewOf = <T>(type: ViewConstructor<T>, data: Uint8Array) =>
  new type(data.buffer, data.byteOffset, data.length / type.BYTES_PER_ELEMENT);
