// Rows of a bfloat16 table for compiled programs on a CPU, as a custom call of XLA, whose own gather makes a float32 copy of
// the whole table first.
//
//   custom call "heddle_gather": (table, ids) -> rows      rows[i] = table[ids[i]]
//   table: [v, d] of 16 bits an element; ids: int32 [n], those outside 0..v-1 are the nearest of them
//   text: "v d n"

#include "custom-calls.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>

namespace heddle {

void GatherHalves(void *result, const void **operands, const char *text, size_t length, void *status) {
  int64_t v = 0, d = 0, n = 0;
  std::istringstream(std::string(text, length)) >> v >> d >> n;
  const auto *const table = static_cast<const uint16_t *>(operands[0]);
  const auto *const ids = static_cast<const int32_t *>(operands[1]);
  auto *const rows = ResultOf<uint16_t>(result, status);
  for (int64_t i = 0; i < n; i++) {
    const int64_t id = std::clamp<int64_t>(ids[i], 0, v - 1);
    std::memcpy(rows + i * d, table + id * d, d * sizeof *table);
  }
}

}  // namespace heddle
