/** What `npm run bench -- --gpu` needs to know: whether there is a GPU, and how the peers' scripts come to use it. */
import { setupFacts } from "tfjs-jit/setup";

/** Dense bfloat16 products, TFLOP/s, as NVIDIA's data sheets have them. */
const PEAK_TFLOPS: readonly (readonly [name: RegExp, tflops: number])[] = [
  [/H100|H200/, 989],
  [/A100/, 312],
  [/L40/, 181],
  [/L4\b/, 121],
  [/4090/, 165],
];

/** The GPU that TensorFlow is set up for, or why there is none. `peakTflops` is null for one that is not in the table. */
export async function findGpu(): Promise<{ name: string; peakTflops: number | null } | string> {
  const { nvidia, link } = await setupFacts();
  if (nvidia === null) return "no NVIDIA driver answers";
  if (link.binding?.device !== "gpu") return "TensorFlow is set up for the CPU: npm run setup -- --gpu";
  return { name: nvidia.name, peakTflops: PEAK_TFLOPS.find(([name]) => name.test(nvidia.name))?.[1] ?? null };
}

/** Runs a peer's script with its tensors on the GPU, and its clock waiting for what was started there. */
export const ON_GPU = `
import runpy, sys, time, torch
torch.set_default_device("cuda")
clock = time.perf_counter
def after_the_gpu():
    torch.cuda.synchronize()
    return clock()
time.perf_counter = after_the_gpu
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rsplit("/", 1)[0])
runpy.run_path(sys.argv[0], run_name="__main__")
`;
