/** NVML's return codes in words, and how much it is asked for at once. */

/** Of one GPU. */
export const MAX_NVML_PROCESSES = 256;

export const NVML = {
  success: 0,
  uninitialized: 1,
  notSupported: 3,
  driverNotLoaded: 9,
  timeout: 10,
  functionNotFound: 13,
  gpuIsLost: 15,
  resetRequired: 16,
  versionMismatch: 18,
} as const;

const WORDS: ReadonlyMap<number, string> = new Map([
  [0, 'success'],
  [1, 'NVML is not initialised'],
  [2, 'invalid argument'],
  [3, 'not supported by this GPU'],
  [4, 'no permission; give this user access to /dev/nvidia*'],
  [6, 'not found'],
  [7, 'the buffer is too small'],
  [8, 'a power cable of the GPU is not attached'],
  [9, 'the NVIDIA driver is not loaded'],
  [10, 'timeout'],
  [11, 'the kernel found a problem with the interrupt of the GPU'],
  [12, 'a library that NVML needs was not found'],
  [13, 'this driver does not have the function'],
  [14, 'the infoROM of the GPU is corrupted'],
  [15, 'the GPU is lost: it has fallen off the bus or cannot be reached'],
  [16, 'the GPU needs a reset'],
  [17, 'the operating system blocks the GPU'],
  [18, 'driver and library differ in version; the driver was upgraded under the running system, reload it or reboot'],
  [19, 'in use'],
  [20, 'out of memory'],
  [21, 'no data'],
  [23, 'out of resources'],
  [25, 'this driver does not know the version of the structure'],
  [26, 'the function is deprecated'],
  [27, 'not ready'],
  [28, 'no GPU was found'],
  [29, 'invalid state'],
  [999, 'unknown error'],
]);

export function nvmlWords(code: number): string {
  return `${WORDS.get(code) ?? 'undocumented code'} (NVML ${code})`;
}

/** The driver is not there, so nothing about any GPU can be known before it is back. */
export function isDriverGone(code: number): boolean {
  return code === NVML.uninitialized || code === NVML.driverNotLoaded || code === NVML.versionMismatch;
}

/** The one GPU that was asked does not work any more. */
export function isGpuBroken(code: number): boolean {
  return code === NVML.gpuIsLost || code === NVML.resetRequired;
}
