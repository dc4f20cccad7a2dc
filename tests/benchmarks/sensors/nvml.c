/* A stand-in for libnvidia-ml.so.1 with one GPU, for machines without one: 30 W, 65 C, 1755 MHz,
 * slowed down by heat where MOTORVAE_TEST_HOT is set. Names and types are those of nvml.h. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOT_SUPPORTED 3

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int result) { return result == NOT_SUPPORTED ? "Not Supported" : "?"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)0x10;
  return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  strncpy(name, "Stand-in", length);
  return 0;
}
int nvmlDeviceGetC2cModeInfoV(void *device, void *info) { return NOT_SUPPORTED; }
/* Since boot; a change every 20 ms. */
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
  if (getenv("MOTORVAE_TEST_NO_COUNTER")) return NOT_SUPPORTED;
  *millijoules = (unsigned long long)(seconds() / 0.02) * 600;
  return 0;
}
struct temperature { unsigned version, sensor; int degrees; };
int nvmlDeviceGetTemperatureV(void *device, struct temperature *found) {
  found->degrees = 65;
  return 0;
}
int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz) { *mhz = 1755; return 0; }
/* A driver before 535 knows the older name only. */
#ifdef OLDER_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
  if (getenv("MOTORVAE_TEST_NO_REASONS")) return NOT_SUPPORTED;
#endif
  *reasons = getenv("MOTORVAE_TEST_HOT") ? 0x20 : 0x1; /* thermal, or idle */
  return 0;
}
