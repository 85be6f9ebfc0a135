// What compiled programs on a CPU call here, as XLA calls it: the result, the operands, the call's text, and a status, which is
// left as it is.

#pragma once

#include <cstddef>

namespace heddle {

// matmul.cc
void MatMul(void *result, const void **operands, const char *text, size_t length, void *status);

// gather.cc
void GatherHalves(void *result, const void **operands, const char *text, size_t length, void *status);

// One result is passed by its address, several by an array of addresses. A program that was read from the compile cache has
// forgotten which it is (XLA serialises no such thing), and does the one or the other. The array is a local variable of
// the caller, as the status is, and a result never is.
template <typename T>
T *ResultOf(void *result, const void *status) {
  constexpr std::ptrdiff_t kFrame = 4096;
  const std::ptrdiff_t distance = static_cast<const char *>(result) - static_cast<const char *>(status);
  const bool is_array = -kFrame < distance && distance < kFrame;
  return static_cast<T *>(is_array ? *static_cast<void **>(result) : result);
}

}  // namespace heddle
