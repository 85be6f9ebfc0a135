// What is downloaded: the pinned TensorFlow wheels from PyPI, and which of their files are kept.

/** Where a TensorFlow computes. The GPU build falls back to the CPU on a machine without a GPU. */
export type Device = "cpu" | "gpu";

/** One file on a Python package index. */
export type Wheel = {
  readonly name: string;
  readonly version: string;
  /** File name on the index; its last part names the platforms. */
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Files whose path starts with one of these are unpacked, the rest is left in the wheel. */
  readonly keep: readonly string[];
  /** What the kept files need on disk. */
  readonly unpackedBytes: number;
};

/** A TensorFlow for one device: its wheels, unpacked side by side as in Python's site-packages. */
export type Build = { readonly version: string; readonly device: Device; readonly wheels: readonly Wheel[] };

/** The version whose C API binding.cc and tfjs-node-gpu's binding are compiled against. */
export const tensorflowVersion = "2.21.0";

/** `pip download` fetches wheels for this Python, whichever Python runs pip: only C libraries are used of them. */
export const wheelPython = { version: "3.11", abi: "cp311" };

/** "TensorFlow 2.21.0 (CPU)" */
export const buildName = (build: { version: string; device: Device }): string =>
  `TensorFlow ${build.version} (${build.device.toUpperCase()})`;

const tensorflowKeeps = [
  "tensorflow/libtensorflow_cc.so.2",
  "tensorflow/libtensorflow_framework.so.2",
  // The C API and what it includes: 5 of the 287 MB of headers.
  "tensorflow/include/tensorflow/c/",
  "tensorflow/include/tensorflow/core/platform/",
  "tensorflow/include/tsl/",
  "tensorflow/include/xla/tsl/",
];

const tensorflowCpu: Wheel = {
  name: "tensorflow-cpu",
  version: tensorflowVersion,
  file: "tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
  bytes: 273_829_956,
  sha256: "2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c",
  keep: tensorflowKeeps,
  unpackedBytes: 858_256_795,
};

const tensorflowGpu: Wheel = {
  name: "tensorflow",
  version: tensorflowVersion,
  file: "tensorflow-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
  bytes: 572_440_367,
  sha256: "9056fbc9ba04235810b71ae6cbd958a196e8804fb53bbcffbf3e23b56155f124",
  keep: tensorflowKeeps,
  unpackedBytes: 1_264_203_217,
};

/**
 * NVIDIA's libraries: what the wheel's metadata requires under the extra `and-cuda`, each at the newest version that
 * it allows. TensorFlow's run path finds them in nvidia/ beside tensorflow/, and they find each other by their own.
 * A line: folder in nvidia/, version, bytes, unpacked bytes, sha256, platforms.
 */
const nvidiaPins = `
cublas       12.9.3.13  581217458  855064416 d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72 manylinux_2_27_x86_64
cuda_cupti   12.8.90     10248621   41311976 ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182 manylinux2014_x86_64.manylinux_2_17_x86_64
cuda_nvcc    12.9.86     40546229   98010465 5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0 manylinux2010_x86_64.manylinux_2_12_x86_64
cuda_nvrtc   12.9.86     89568129  227340992 210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4 manylinux2010_x86_64.manylinux_2_12_x86_64
cuda_runtime 12.9.79      3493179    5342176 25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3 manylinux2014_x86_64.manylinux_2_17_x86_64
cudnn        9.28.0.42  716538495 1162393472 9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375 manylinux_2_27_x86_64
cufft        11.4.1.4   200877592  293609416 c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28 manylinux2014_x86_64.manylinux_2_17_x86_64
curand       10.3.10.19  68295626  166965432 49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e manylinux_2_27_x86_64
cusolver     11.7.5.82  338117415  494975064 15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88 manylinux_2_27_x86_64
cusparse     12.5.10.65 366465088  486556368 73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78 manylinux2014_x86_64.manylinux_2_17_x86_64
nccl         2.32.3     351526311  489653380 bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c manylinux_2_27_x86_64
nvjitlink    12.9.86     39748338   95935344 e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9 manylinux2010_x86_64.manylinux_2_12_x86_64
`;

const nvidiaWheels: readonly Wheel[] = nvidiaPins
  .trim()
  .split("\n")
  .map((line) => {
    const [folder, version, bytes, unpackedBytes, sha256, platforms] = line.split(/ +/) as [string, ...string[]];
    return {
      name: `nvidia-${folder.replaceAll("_", "-")}-cu12`,
      version: version!,
      file: `nvidia_${folder}_cu12-${version}-py3-none-${platforms}.whl`,
      bytes: Number(bytes),
      sha256: sha256!,
      // bin/ and nvvm/ are nvcc's: ptxas and libdevice, which XLA wants.
      keep: [`nvidia/${folder}/lib/`, `nvidia/${folder}/bin/`, `nvidia/${folder}/nvvm/`],
      unpackedBytes: Number(unpackedBytes),
    };
  });

/** The build that this version of tfjs-jit uses for a device. */
export const buildFor = (device: Device): Build => ({
  version: tensorflowVersion,
  device,
  wheels: device === "cpu" ? [tensorflowCpu] : [tensorflowGpu, ...nvidiaWheels],
});
