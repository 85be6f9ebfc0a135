// The inner loops of matmul.cc, for one instruction set. Included once for each, in a namespace of its own, after
// LANES (floats in a vector, a macro) and ROWS (of a tile in registers) are defined.
//
// A tile of the result, ROWS x COLUMNS, stays in registers while a panel of each factor passes: of the left one ROWS
// rows, of the right one COLUMNS columns, DEPTH steps of the inner dimension at a time, so that panels stay in the caches
// (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Every element of the result is
// the sum over blocks of DEPTH, in order, of sums in order: the same bits however the work is divided.

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

constexpr int kColumns = 2 * LANES;
constexpr int kBlockPanels = 16;  // a block of the result is at most that many panels wide and high

inline Vector Load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
inline Vector Load(const Bfloat16 *from) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const Halves *>(from), Bits) << 16);
}
inline void Store(float *to, Vector values) { *reinterpret_cast<Vector *>(to) = values; }

// LANES vectors as the rows of a square, transposed in place.
__attribute__((always_inline)) inline void Transpose(Vector *rows) {
#if LANES == 16
  __m512 a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 8
    for (int j = 0; j < 2; j++) {
      b[i + 2 * j] = reinterpret_cast<__m512>(_mm512_unpacklo_pd(reinterpret_cast<__m512d>(a[i + j]), reinterpret_cast<__m512d>(a[i + j + 2])));
      b[i + 2 * j + 1] = reinterpret_cast<__m512>(_mm512_unpackhi_pd(reinterpret_cast<__m512d>(a[i + j]), reinterpret_cast<__m512d>(a[i + j + 2])));
    }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 8)
#pragma GCC unroll 8
    for (int j = 0; j < 4; j++) {
      a[i + j] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0x88);
      a[i + j + 4] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    rows[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
  }
#else
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 8
    for (int j = 0; j < 2; j++) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
    }
#pragma GCC unroll 8
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
#endif
}

// Panels of `width` numbers a step, `stride` apart, of [depth, count] numbers whose rows are `row` apart; missing ones are 0.
template <int width, int stride, typename T>
void PackSteps(const T *from, int64_t row, int depth, int64_t count, float *to) {
  const int64_t whole = count / width;
  for (int k = 0; k < depth; k++) {
    const T *step = from + k * row;
    float *at = to + k * stride;
    for (int64_t panel = 0; panel < whole; panel++, step += width, at += depth * stride) {
      // A vector may be wider than the panel: then it reads into the next one, which must be there for that.
      if (width % LANES == 0 || panel * width + LANES <= count) {
#pragma GCC unroll 2
        for (int j = 0; j < width; j += LANES) Store(at + j, Load(step + j));
      } else {
        for (int j = 0; j < width; j++) at[j] = ToFloat(step[j]);
      }
    }
    if (whole * width == count) continue;
    for (int j = 0; j < width; j++) at[j] = whole * width + j < count ? ToFloat(step[j]) : 0.f;
  }
}

// The same panels of [count, depth] numbers, `row` apart: columns of what is transposed.
template <int width, int stride, typename T>
void PackTransposed(const T *from, int64_t row, int depth, int64_t count, float *to) {
  for (int64_t first = 0; first < count; first += width, to += depth * stride)
    for (int lane = 0; lane < width; lane += LANES) {
      constexpr int kMost = width < LANES ? width : LANES;
      const int present = static_cast<int>(std::max<int64_t>(0, std::min<int64_t>(kMost, count - first - lane)));
      const T *const at = from + (first + lane) * row;
      int k = 0;
      for (; present == kMost && k + LANES <= depth; k += LANES) {
        Vector square[LANES] = {};
#pragma GCC unroll 16
        for (int i = 0; i < kMost; i++) square[i] = Load(at + i * row + k);
        Transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) Store(to + (k + i) * stride + lane, square[i]);
      }
      for (; k < depth; k++)
        for (int i = 0; i < kMost; i++) to[k * stride + lane + i] = i < present ? ToFloat(at[i * row + k]) : 0.f;
    }
}

// c [ROWS, kColumns] of the packed panels, added to what is there unless it is the first block of the inner dimension.
inline void Tile(const float *a, const float *b, int depth, float *c, int64_t c_row, bool add) {
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; i++) {
    __builtin_prefetch(c + i * c_row, 1);
    __builtin_prefetch(c + i * c_row + LANES, 1);
  }
  Vector sums[ROWS][2];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; i++) sums[i][0] = sums[i][1] = Vector{};
  for (int k = 0; k < depth; k++) {
    const Vector left = Load(b), right = Load(b + LANES);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
      const float factor = a[i];
      sums[i][0] += left * factor;
      sums[i][1] += right * factor;
    }
    a += LANES;
    b += kColumns;
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; i++) {
    float *row = c + i * c_row;
    Store(row, add ? Load(row) + sums[i][0] : sums[i][0]);
    Store(row + LANES, add ? Load(row + LANES) + sums[i][1] : sums[i][1]);
  }
}

// A tile at the edge, of which only some rows and columns exist.
inline void EdgeTile(const float *a, const float *b, int depth, float *c, int64_t c_row, bool add, int rows, int columns) {
  float whole[ROWS * kColumns];
  Tile(a, b, depth, whole, kColumns, false);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) c[i * c_row + j] = (add ? c[i * c_row + j] : 0.f) + whole[i * kColumns + j];
}

// One block of the result: rows and columns from `row` and `column` on.
template <typename A, typename B>
void Block(const Product &p, const A *a, const B *b, float *c, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  static thread_local AlignedFloats packed(kDepth * kBlockPanels * (LANES + kColumns));
  float *const packed_a = packed.data(), *const packed_b = packed_a + kDepth * kBlockPanels * LANES;
  const int64_t blocks = (p.k + kDepth - 1) / kDepth;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t k = block * p.k / blocks;
    const int depth = static_cast<int>((block + 1) * p.k / blocks - k);
    const A *const from_a = a + row * p.a_row + k * p.a_column;
    const B *const from_b = b + k * p.b_row + column * p.b_column;
    if (p.a_row == 1)
      PackSteps<ROWS, LANES>(from_a, p.a_column, depth, rows, packed_a);
    else
      PackTransposed<ROWS, LANES>(from_a, p.a_row, depth, rows, packed_a);
    if (p.b_column == 1)
      PackSteps<kColumns, kColumns>(from_b, p.b_row, depth, columns, packed_b);
    else
      PackTransposed<kColumns, kColumns>(from_b, p.b_column, depth, columns, packed_b);
    for (int64_t j = 0; j < columns; j += kColumns) {
      const int width = static_cast<int>(std::min<int64_t>(kColumns, columns - j));
      for (int64_t i = 0; i < rows; i += ROWS) {
        const int height = static_cast<int>(std::min<int64_t>(ROWS, rows - i));
        float *const to = c + (row + i) * p.n + column + j;
        const float *const left = packed_a + i / ROWS * LANES * depth, *const right = packed_b + j * depth;
        if (height == ROWS && width == kColumns)
          Tile(left, right, depth, to, p.n, block > 0);
        else
          EdgeTile(left, right, depth, to, p.n, block > 0, height, width);
      }
    }
  }
}

inline float Sum(Vector values) {
#if LANES == 16
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(values), _mm512_extractf32x8_ps(values, 1));
#else
  const __m256 eight = values;
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// c [M, n] for few rows of a and columns of b that are contiguous: rows of a weight matrix, which are read once, as they are.
template <int M, typename B>
void FewRows(const float *a, int64_t a_row, const B *b, int64_t b_column, int64_t depth, int64_t columns, float *c, int64_t c_row) {
  constexpr int N = M == 1 ? 8 : M == 2 ? 6 : M <= 4 ? 4 : 3;
  int64_t j = 0;
  const auto some = [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    Vector sums[M][kCount];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
      for (int n = 0; n < kCount; n++) sums[m][n] = Vector{};
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
      Vector weights[kCount];
#pragma GCC unroll 8
      for (int n = 0; n < kCount; n++) {
        weights[n] = Load(b + (j + n) * b_column + k);
        __builtin_prefetch(b + (j + n + 2 * kCount) * b_column + k);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) {
        const Vector x = Load(a + m * a_row + k);
#pragma GCC unroll 8
        for (int n = 0; n < kCount; n++) sums[m][n] += weights[n] * x;
      }
    }
    for (int m = 0; m < M; m++)
      for (int n = 0; n < kCount; n++) {
        float sum = Sum(sums[m][n]);
        for (int64_t rest = k; rest < depth; rest++) sum += a[m * a_row + rest] * ToFloat(b[(j + n) * b_column + rest]);
        c[m * c_row + j + n] = sum;
      }
  };
  for (; j + N <= columns; j += N) some(std::integral_constant<int, N>());
  for (; j < columns; j++) some(std::integral_constant<int, 1>());
}

template <typename B>
void FewRows(const float *a, int64_t a_row, int64_t rows, const B *b, int64_t b_column, int64_t depth, int64_t columns, float *c,
             int64_t c_row) {
  for (; rows >= 8; rows -= 8, a += 8 * a_row, c += 8 * c_row) FewRows<8>(a, a_row, b, b_column, depth, columns, c, c_row);
  switch (rows) {
    case 7: return FewRows<7>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 6: return FewRows<6>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 5: return FewRows<5>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 4: return FewRows<4>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 3: return FewRows<3>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 2: return FewRows<2>(a, a_row, b, b_column, depth, columns, c, c_row);
    case 1: return FewRows<1>(a, a_row, b, b_column, depth, columns, c, c_row);
  }
}

template <typename A, typename B>
void Multiply(const Product &p, const void *left, const void *right, float *c) {
  const A *const a = static_cast<const A *>(left);
  const B *const b = static_cast<const B *>(right);
  const bool few = p.m <= kFewRows && p.a_column == 1 && p.b_row == 1;
  const int64_t threads = Threads();
  if (few) {
    std::vector<float> converted;
    if (!std::is_same<A, float>::value) {
      converted.resize(p.batch * p.m * p.k);
      std::transform(a, a + converted.size(), converted.data(), [](A value) { return ToFloat(value); });
    }
    const float *const rows = converted.empty() ? reinterpret_cast<const float *>(a) : converted.data();
    // Parts of some 64 kB of weights, at least four for each thread where there is enough.
    const int64_t part = std::max<int64_t>(8, std::min<int64_t>((1 << 15) / std::max<int64_t>(1, p.k), p.n / (4 * threads) + 1));
    const int64_t parts = (p.n + part - 1) / part;
    RunAll(static_cast<int>(p.batch * parts), [&](int task) {
      const int64_t i = task / parts, from = task % parts * part;
      FewRows(rows + i * p.m * p.k, p.a_row, p.m, b + i * p.n * p.k + from * p.b_column, p.b_column, p.k,
              std::min(part, p.n - from), c + i * p.m * p.n + from, p.n);
    });
    return;
  }
  const int64_t high = (p.m + ROWS - 1) / ROWS, wide = (p.n + kColumns - 1) / kColumns;  // in panels
  int64_t rows = (high + kBlockPanels - 1) / kBlockPanels, columns = (wide + kBlockPanels - 1) / kBlockPanels;  // in blocks
  while (p.batch * rows * columns < 4 * threads && (rows < high || columns < wide)) {
    if (columns < wide && (rows >= high || wide * rows >= high * columns))
      columns = std::min(2 * columns, wide);
    else
      rows = std::min(2 * rows, high);
  }
  RunAll(static_cast<int>(p.batch * rows * columns), [&](int task) {
    const int64_t i = task / (rows * columns), block = task % (rows * columns), y = block % rows, x = block / rows;
    const int64_t top = y * high / rows * ROWS, bottom = std::min(p.m, (y + 1) * high / rows * ROWS);
    const int64_t first = x * wide / columns * kColumns, last = std::min(p.n, (x + 1) * wide / columns * kColumns);
    Block(p, a + i * p.m * p.k, b + i * p.k * p.n, c + i * p.m * p.n, top, bottom - top, first, last - first);
  });
}

constexpr Kernel kKernels[2][2] = {{Multiply<float, float>, Multiply<float, Bfloat16>},
                                   {Multiply<Bfloat16, float>, Multiply<Bfloat16, Bfloat16>}};
