// Passes over the activations of a pack on a CPU, in float32 and on one thread: what a GPU's compiler fuses.
//
// Members come one after the other and in the same order of sums, so a member's bits depend on nobody else. Shapes: K
// members, N positions in sequences of T, width d, H heads of size h, V entries of the vocabulary. A `stride` is the
// floats from one member's weights to the next one's. No NaN is lost: nothing here assumes that there are none.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;  // floats of a vector: so many rows of a tile lie in registers beside half as many sums
#else
constexpr int W = 8;
#endif
constexpr float EPS = 1e-6f;  // as in reference.py

typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));

inline Vec load(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, Vec x) { std::memcpy(to, &x, sizeof x); }

inline Vec all(float x) { return Vec{} + x; }

inline Ints lanes() {
  Ints n;
  for (int i = 0; i < W; ++i) n[i] = i;
  return n;
}

// e^x to 2 units in the last place, for x < 88; 0 below the normal numbers.
inline Vec exp(Vec x) {
  const Vec n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // to the nearest whole number
  const Vec r = (x - n * .693359375f) + n * 2.12194440e-4f;
  Vec p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const Vec bounded = x < -87.f ? all(0.f) : n;
  const Ints power = (__builtin_convertvector(bounded, Ints) + 127) << 23;
  Vec two;
  std::memcpy(&two, &power, sizeof two);
  return x < -87.f ? all(0.f) : p * two;
}

inline float sum(Vec x) {
  for (int n = W / 2; n; n /= 2) x += __builtin_shuffle(x, lanes() ^ n);
  return x[0];
}

inline float dot(const float* a, const float* b, int64_t n) {
  Vec total{};
  int64_t i = 0;
  for (; i + W <= n; i += W) total += load(a + i) * load(b + i);
  float out = sum(total);
  for (; i < n; ++i) out += a[i] * b[i];
  return out;
}

// ---- RMSNorm, and the short convolution over positions that may follow it ----

template <int TAPS>
void normalise(const float* x, const float* gain, const float* taps, float* out, float* scale, int64_t N, int T,
               int d) {
  std::vector<float> rows(TAPS * d), none(d);
  for (int64_t n = 0; n < N; ++n, x += d, out += d) {
    const int t = n % T;
    const float r = scale[n] = 1.f / std::sqrt(dot(x, x, d) / d + EPS);
    const float* h[3];
    for (int j = 0; j < TAPS; ++j) h[j] = j <= t ? &rows[(t - j) % TAPS * d] : none.data();
    float* here = TAPS == 1 ? out : &rows[t % TAPS * d];
#pragma omp simd
    for (int c = 0; c < d; ++c) here[c] = x[c] * r * gain[c];
    if (TAPS == 2)
#pragma omp simd
      for (int c = 0; c < d; ++c) out[c] = taps[c] * here[c] + taps[d + c] * h[1][c];
    if (TAPS == 3)
#pragma omp simd
      for (int c = 0; c < d; ++c) out[c] = taps[c] * here[c] + taps[d + c] * h[1][c] + taps[2 * d + c] * h[2][c];
  }
}

template <int TAPS>
void normalise_back(const float* x, const float* gain, const float* taps, const float* scale, const float* grad,
                    const float* past, float* dx, float* dgain, float* dtaps, int64_t N, int T, int d) {
  std::vector<float> unit(d), slope(d), none(d);
  for (int64_t n = 0; n < N; ++n, x += d, grad += d, dx += d) {
    const int t = n % T;
    const float r = scale[n];
    const float *g1 = TAPS > 1 && t + 1 < T ? grad + d : none.data(),
                *g2 = TAPS > 2 && t + 2 < T ? grad + 2 * d : none.data();
#pragma omp simd
    for (int c = 0; c < d; ++c) {
      const float u = x[c] * r, h = u * gain[c];
      float dh = grad[c];
      if (TAPS > 1) {
        dh = taps[c] * grad[c] + taps[d + c] * g1[c];
        dtaps[c] += grad[c] * h;
        dtaps[d + c] += g1[c] * h;
      }
      if (TAPS > 2) {
        dh += taps[2 * d + c] * g2[c];
        dtaps[2 * d + c] += g2[c] * h;
      }
      dgain[c] += dh * u;
      unit[c] = u;
      slope[c] = dh * gain[c];
    }
    const float along = dot(unit.data(), slope.data(), d) / d, *other = past ? past + n * d : none.data();
#pragma omp simd
    for (int c = 0; c < d; ++c) dx[c] = other[c] + r * (slope[c] - unit[c] * along);
  }
}

// ---- attention ----

struct Heads {             // where queries, keys and values of one head of one sequence lie, and what is done to them
  const float *q, *k, *v;  // (T, h), `row` floats apart
  const float* gate;       // of the keys, (h,): how much of each is the position's before; null for none
  const float* gain;       // of the normalised queries; null where nothing is normalised
  const float *cos, *sin;  // (T, turned)
  int64_t row;
  int T, h, turned;
};

struct Room {  // what a head needs on its way: rows of whole vectors, zeros beyond T and h
  int rows, size;
  std::vector<Vec> memory;
  float *q, *k, *v, *grad, *dq, *dk, *dv;  // (rows, size)
  float *logits, *slopes;                  // (rows, W): of W queries
  float* one;                              // (size,)
  Room(int T, int h)
      : rows((T + W - 1) / W * W), size((h + W - 1) / W * W), memory(rows * (7 * size / W + 2) + size / W) {
    float* next = reinterpret_cast<float*>(memory.data());
    for (float** x : {&q, &k, &v, &grad, &dq, &dk, &dv}) *x = next, next += rows * size;
    for (float** x : {&logits, &slopes}) *x = next, next += rows * W;
    one = next;
  }
};

inline float over_rms(const float* x, int h) { return 1.f / std::sqrt(dot(x, x, h) / h + EPS); }

inline void turn(float* x, const float* cos, const float* sin, int turned) {
#pragma omp simd
  for (int c = 0; c < turned; ++c) {
    const float a = x[c], b = x[turned + c];
    x[c] = a * cos[c] - b * sin[c];
    x[turned + c] = b * cos[c] + a * sin[c];
  }
}

inline void turn_back(float* x, const float* cos, const float* sin, int turned) {
#pragma omp simd
  for (int c = 0; c < turned; ++c) {
    const float a = x[c], b = x[turned + c];
    x[c] = a * cos[c] + b * sin[c];
    x[turned + c] = b * cos[c] - a * sin[c];
  }
}

// The key of position t before it is normalised.
template <int SIZE>
inline void key(const Heads& head, int t, float* to) {
  const int h = SIZE ? SIZE : head.h;
  const float* k = head.k + t * head.row;
  if (!head.gate)
#pragma omp simd
    for (int c = 0; c < h; ++c) to[c] = k[c];
  else if (t)
#pragma omp simd
    for (int c = 0; c < h; ++c) to[c] = k[c] + head.gate[c] * (k[c - head.row] - k[c]);
  else
#pragma omp simd
    for (int c = 0; c < h; ++c) to[c] = k[c] - head.gate[c] * k[c];
}

template <int SIZE>
void prepare(const Heads& head, Room& room) {
  const int h = SIZE ? SIZE : head.h;
  const float root = 1.f / std::sqrt(float(h));
  for (int t = 0; t < head.T; ++t) {
    float *q = &room.q[t * room.size], *k = &room.k[t * room.size], *v = &room.v[t * room.size];
    const float *cos = head.cos + t * head.turned, *sin = head.sin + t * head.turned, *raw = head.q + t * head.row;
    key<SIZE>(head, t, k);
    const float by = root * (head.gain ? *head.gain * over_rms(raw, h) : 1.f);
    const float r = head.gain ? over_rms(k, h) : 1.f;
#pragma omp simd
    for (int c = 0; c < h; ++c) {
      q[c] = raw[c] * by;
      k[c] *= r;
      v[c] = head.v[t * head.row + c];
    }
    turn(q, cos, sin, head.turned);
    turn(k, cos, sin, head.turned);
  }
}

// to[j][i] = x[i][j]: blocks of halving size change places.
inline void transposed(const float* x, int row, Vec* to) {
  for (int i = 0; i < W; ++i) to[i] = load(x + i * row);
#pragma GCC unroll 4
  for (int n = W / 2; n; n /= 2) {
    const Ints low = lanes() & ~n, up = lanes() & n, first = low + (up ? W : 0), second = first + n;
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
      if (!(i & n)) {
        const Vec a = to[i], b = to[i + n];
        to[i] = __builtin_shuffle(a, b, first);
        to[i + n] = __builtin_shuffle(a, b, second);
      }
  }
}

// out[j] (+)= sum over r of a[j][r] * rows[r], for j < J; rows of vectors stay in registers.
template <bool ADD>
inline void spread(const float* a, int a_row, const Vec* rows, float* out, int out_row, int J) {
  constexpr int MANY = W / 2;
  Vec b[W];
  for (int r = 0; r < W; ++r) b[r] = rows[r];
  for (int j = 0; j < J; j += MANY) {
    Vec total[MANY];
    for (int i = 0; i < MANY; ++i) total[i] = ADD ? load(out + (j + i) * out_row) : Vec{};
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r)
#pragma GCC unroll 16
      for (int i = 0; i < MANY; ++i) total[i] += a[(j + i) * a_row + r] * b[r];
    for (int i = 0; i < MANY; ++i) store(out + (j + i) * out_row, total[i]);
  }
}

// total[i] = sum over j < J of a[j][i] * rows[j].
inline void gather(const float* a, int a_row, const float* rows, int row, int J, Vec* total) {
  Vec sums[W] = {};
  for (int j = 0; j < J; ++j) {
    const Vec b = load(rows + j * row);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) sums[i] += a[j * a_row + i] * b;
  }
  for (int i = 0; i < W; ++i) total[i] = sums[i];
}

// a (J, size) times W rows of b (W, size), as (J, W).
inline void products(const float* a, const float* b, int size, int J, float* out) {
  for (int c = 0; c < size; c += W) {
    Vec columns[W];
    transposed(b + c, size, columns);
    if (c)
      spread<true>(a + c, size, columns, out, W, J);
    else
      spread<false>(a + c, size, columns, out, W, J);
  }
}

// sums (J, size) += a (J, W) times W rows of b (W, size).
inline void accumulate(const float* a, const float* b, int size, int J, float* sums) {
  for (int c = 0; c < size; c += W) {
    Vec rows[W];
    for (int i = 0; i < W; ++i) rows[i] = load(b + i * size + c);
    spread<true>(a, W, rows, sums + c, size, J);
  }
}

template <int SIZE>
void attend(const Heads& head, Room& room, float* out, int64_t out_row, float* top, float* over) {
  const int h = SIZE ? SIZE : head.h, size = room.size;
  prepare<SIZE>(head, room);
  float* logits = room.logits;
  for (int from = 0; from < head.T; from += W) {
    const int J = from + W, here = std::min(W, head.T - from);
    products(room.k, &room.q[from * size], size, J, logits);
    Vec most = load(logits);
    for (int j = 1; j < J; ++j) {
      const Vec x = load(logits + j * W);
      most = (lanes() >= j - from) & ~(x <= most) ? x : most;  // a NaN stays
    }
    Vec total{};
    for (int j = 0; j < J; ++j) {
      Vec p = exp(load(logits + j * W) - most);
      if (j > from) p = lanes() < j - from ? all(0.f) : p;
      total += p;
      store(logits + j * W, p);
    }
    const Vec inverse = 1.f / total;
    for (int i = 0; i < here; ++i) top[from + i] = most[i], over[from + i] = inverse[i];
    for (int c = 0; c < h; c += W) {
      Vec sums[W];
      gather(logits, W, &room.v[c], size, J, sums);
      for (int i = 0; i < here; ++i) {
        const Vec row = sums[i] * inverse[i];
        float* to = out + (from + i) * out_row + c;
        if (c + W <= h)
          store(to, row);
        else
          for (int n = 0; n < h - c; ++n) to[n] = row[n];
      }
    }
  }
}

// Gradients of queries, keys and values at dq, dk, dv, laid as head.q, .k, .v are; dq and dk may be the same place.
// dgate (h,) and dgain (1,) are added to.
template <int SIZE>
void attend_back(const Heads& head, Room& room, const float* grad, int64_t grad_row, const float* top,
                 const float* over, float* dq, float* dk, float* dv, float* dgate, float* dgain) {
  const int h = SIZE ? SIZE : head.h, size = room.size, T = head.T;
  prepare<SIZE>(head, room);
  for (int t = 0; t < T; ++t)
#pragma omp simd
    for (int c = 0; c < h; ++c) room.grad[t * size + c] = grad[t * grad_row + c];
  std::fill_n(room.dk, room.rows * size, 0.f);
  std::fill_n(room.dv, room.rows * size, 0.f);
  float *p = room.logits, *dp = room.slopes;
  for (int from = 0; from < T; from += W) {
    const int J = from + W, here = std::min(W, T - from);
    products(room.k, &room.q[from * size], size, J, p);
    products(room.v, &room.grad[from * size], size, J, dp);
    Vec most{}, inverse{}, along{};
    std::memcpy(&most, top + from, 4 * here);
    std::memcpy(&inverse, over + from, 4 * here);
    for (int j = 0; j < J; ++j) {
      Vec x = exp(load(p + j * W) - most) * inverse;
      if (j > from) x = lanes() < j - from ? all(0.f) : x;
      along += x * load(dp + j * W);
      store(p + j * W, x);
    }
    for (int j = 0; j < J; ++j) store(dp + j * W, load(p + j * W) * (load(dp + j * W) - along));
    for (int c = 0; c < size; c += W) {
      Vec rows[W];
      gather(dp, W, &room.k[c], size, J, rows);
      for (int i = 0; i < W; ++i) store(&room.dq[(from + i) * size + c], rows[i]);
    }
    accumulate(p, &room.grad[from * size], size, J, room.dv);
    accumulate(dp, &room.q[from * size], size, J, room.dk);
  }
  const float root = 1.f / std::sqrt(float(h));
  float* raw = room.one;
  for (int t = 0; t < T; ++t) {
    float* slope = &room.dk[t * size];
    turn_back(slope, head.cos + t * head.turned, head.sin + t * head.turned, head.turned);
    if (head.gain) {
      key<SIZE>(head, t, raw);
      const float r = over_rms(raw, h), mean = dot(raw, slope, h) * r * r / h;
#pragma omp simd
      for (int c = 0; c < h; ++c) slope[c] = r * (slope[c] - raw[c] * mean);
    }
  }
  std::fill_n(raw, h, 0.f);
  for (int t = 0; t < T; ++t) {
    const float *slope = &room.dk[t * size], *next = t + 1 < T ? slope + size : raw;
    float *to = dk + t * head.row, *value = dv + t * head.row;
#pragma omp simd
    for (int c = 0; c < h; ++c) value[c] = room.dv[t * size + c];
    if (!head.gate) {
#pragma omp simd
      for (int c = 0; c < h; ++c) to[c] = slope[c];
      continue;
    }
    const float* k = head.k + t * head.row;
#pragma omp simd
    for (int c = 0; c < h; ++c) {
      to[c] = slope[c] + head.gate[c] * (next[c] - slope[c]);
      dgate[c] += (next[c] - slope[c]) * k[c];
    }
  }
  for (int t = 0; t < T; ++t) {
    float *slope = &room.dq[t * size], *to = dq + t * head.row;
    const float* q = head.q + t * head.row;
    turn_back(slope, head.cos + t * head.turned, head.sin + t * head.turned, head.turned);
    float r = 1.f, along = 0.f, gain = root;
    if (head.gain) {
      r = over_rms(q, h);
      along = dot(q, slope, h) * r;
      *dgain += root * along;
      along *= r / h;
      gain = root * *head.gain;
    }
    if (dq == dk)
#pragma omp simd
      for (int c = 0; c < h; ++c) to[c] += gain * r * (slope[c] - q[c] * along);
    else
#pragma omp simd
      for (int c = 0; c < h; ++c) to[c] = gain * r * (slope[c] - q[c] * along);
  }
}

// run(head, k, n, i) of head i in the sequence of member k that begins at n, for all in turn; `of` is what they share,
// with the first member's gate and gain.
template <class Run>
void each_head(const float* x, const Heads& of, int64_t parts, int64_t gate_stride, int64_t gain_stride, int64_t K,
               int64_t N, int64_t H, Run run) {
  const int64_t d = H * of.h;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t n = 0; n < N; n += of.T)
      for (int64_t i = 0; i < H; ++i) {
        Heads head = of;
        head.q = x + (k * N + n) * of.row + i * of.h;
        head.k = head.q + (parts - 2) * d;
        head.v = head.q + (parts - 1) * d;
        if (of.gate) head.gate += k * gate_stride + i * of.h;
        if (of.gain) head.gain += k * gain_stride + i;
        run(head, k, n, i);
      }
}

// 0, or 1 where there is no memory for what `function` needs on its way.
template <class Function>
int told(Function function) {
  try {
    function();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

extern "C" {

// out (K, N, d): x (K, N, d) over its rms, times gain (K, d), then the taps (K, taps, d); scale (K, N) is kept.
int norm_forward(const float* x, const float* gain, const float* taps, int64_t count, int64_t stride,
                 int64_t taps_stride, float* out, float* scale, int64_t K, int64_t N, int64_t T, int64_t d) {
  return told([&] {
    for (int64_t k = 0; k < K; ++k) {
      const auto run = count == 3 ? normalise<3> : count == 2 ? normalise<2> : normalise<1>;
      run(x + k * N * d, gain + k * stride, taps + k * taps_stride, out + k * N * d, scale + k * N, N, T, d);
    }
  });
}

// Gradients of x, with `past` added: what comes to it by other ways; of gain (K, d) and taps, which are added to.
int norm_backward(const float* x, const float* gain, const float* taps, int64_t count, int64_t stride,
                  int64_t taps_stride, const float* scale, const float* grad, const float* past, float* dx,
                  float* dgain, float* dtaps, int64_t K, int64_t N, int64_t T, int64_t d) {
  return told([&] {
    for (int64_t k = 0; k < K; ++k) {
      const auto run = count == 3 ? normalise_back<3> : count == 2 ? normalise_back<2> : normalise_back<1>;
      run(x + k * N * d, gain + k * stride, taps + k * taps_stride, scale + k * N, grad + k * N * d,
          past ? past + k * N * d : nullptr, dx + k * N * d, dgain + k * d, dtaps + k * count * d, N, T, d);
    }
  });
}

// parts: 3 where x (K, N, parts * d) is queries, keys and values, 2 where queries are the keys.
int attention_forward(const float* x, const float* gate, const float* gain, const float* cos, const float* sin,
                      int64_t parts, int64_t gate_stride, int64_t gain_stride, int64_t turned, float* out, float* top,
                      float* over, int64_t K, int64_t N, int64_t T, int64_t H, int64_t h) {
  return told([&] {
    Room room(T, h);
    const int64_t d = H * h;
    const auto run = h == 16 ? attend<16> : h == 32 ? attend<32> : h == 64 ? attend<64> : attend<0>;
    const Heads of{nullptr, nullptr, nullptr, gate, gain, cos, sin, parts * d, int(T), int(h), int(turned)};
    each_head(x, of, parts, gate_stride, gain_stride, K, N, H, [&](const Heads& head, int64_t k, int64_t n, int64_t i) {
      const int64_t at = (k * H + i) * N + n;
      run(head, room, out + (k * N + n) * d + i * h, d, top + at, over + at);
    });
  });
}

int attention_backward(const float* x, const float* gate, const float* gain, const float* cos, const float* sin,
                       int64_t parts, int64_t gate_stride, int64_t gain_stride, int64_t turned, const float* grad,
                       const float* top, const float* over, float* dx, float* dgate, float* dgain, int64_t K, int64_t N,
                       int64_t T, int64_t H, int64_t h) {
  return told([&] {
    Room room(T, h);
    const int64_t d = H * h;
    const auto run = h == 16 ? attend_back<16> : h == 32 ? attend_back<32> : h == 64 ? attend_back<64> : attend_back<0>;
    const Heads of{nullptr, nullptr, nullptr, gate, gain, cos, sin, parts * d, int(T), int(h), int(turned)};
    each_head(x, of, parts, gate_stride, gain_stride, K, N, H, [&](const Heads& head, int64_t k, int64_t n, int64_t i) {
      const int64_t at = (k * H + i) * N + n;
      float* dq = dx + (head.q - x);
      run(head, room, grad + (k * N + n) * d + i * h, d, top + at, over + at, dq, dq + (parts - 2) * d,
          dq + (parts - 1) * d, dgate + k * d + i * h, dgain + k * H + i);
    });
  });
}

// ---- the rest ----

int squared_relu_forward(const float* x, float* out, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float y = x[i] < 0 ? 0.f : x[i];
    out[i] = y * y;
  }
  return 0;
}

int squared_relu_backward(const float* x, const float* grad, float* dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = 2.f * (x[i] < 0 ? 0.f : x[i]) * grad[i];
  return 0;
}

// AdamW (1711.05101) of K rows of P floats, in place. Of each of n weights `where` has the gradient's address (K,
// size), where it begins in a row, and its size; `by` the multipliers of rate, decay and eps. Of each member `numbers`
// has rate, decay, clip, and how many updates it has made, this one too. norm (K,) is the gradient's, before it is
// clipped.
int adamw(float* weights, float* first, float* second, const int64_t* where, const double* by, const double* numbers,
          const double* betas, float* norm, int64_t K, int64_t P, int64_t n) {
  for (int64_t k = 0; k < K; ++k, numbers += 4) {
    double square = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float* grad = reinterpret_cast<const float*>(where[3 * i]) + k * where[3 * i + 2];
      square += dot(grad, grad, where[3 * i + 2]);
    }
    norm[k] = std::sqrt(square);
    const double over = norm[k] / numbers[2], updates = numbers[3];
    const float shrink = over <= 1 ? 1. : 1. / over;
    const float new1 = 1. - betas[0], old2 = betas[1], new2 = 1. - betas[1];
    const double correct = 1. - std::pow(betas[0], updates), root = std::sqrt(1. - std::pow(betas[1], updates));
    for (int64_t i = 0; i < n; ++i, by += 3) {
      const int64_t size = where[3 * i + 2], at = k * P + where[3 * i + 1];
      const float* grad = reinterpret_cast<const float*>(where[3 * i]) + k * size;
      float *w = weights + at, *m = first + at, *v = second + at;
      const float keep = 1. - numbers[1] * by[1], rate = numbers[0] * by[0] / correct, eps = betas[2] * by[2];
      const float over_root = 1. / root;
#pragma omp simd
      for (int64_t j = 0; j < size; ++j) {
        const float g = grad[j] * shrink;
        m[j] += new1 * (g - m[j]);
        v[j] = old2 * v[j] + new2 * g * g;
        w[j] = w[j] * keep - rate * m[j] / (std::sqrt(v[j]) * over_root + eps);
      }
    }
    by -= 3 * n;
  }
  return 0;
}

// loss (n,) of rows of logits (n, V) at targets (n,); NaN where there is no such entry; each row's largest,
// and one over its sum of e^(x - largest).
int cross_entropy_forward(const float* x, const int64_t* target, float* loss, float* most, float* over, int64_t n,
                          int64_t V) {
  for (int64_t i = 0; i < n; ++i, x += V) {
    Vec tops = all(x[0]), total{};
    int64_t j = 0;
    for (; j + W <= V; j += W) tops = ~(load(x + j) <= tops) ? load(x + j) : tops;
    float top = tops[0];
    for (int c = 1; c < W; ++c) top = !(tops[c] <= top) ? tops[c] : top;
    for (; j < V; ++j) top = !(x[j] <= top) ? x[j] : top;
    for (j = 0; j + W <= V; j += W) total += exp(load(x + j) - top);
    float z = sum(total);
    for (; j < V; ++j) z += std::exp(x[j] - top);
    most[i] = top;
    over[i] = 1.f / z;
    const bool known = 0 <= target[i] && target[i] < V;
    loss[i] = known ? std::log(z) - (x[target[i]] - top) : std::numeric_limits<float>::quiet_NaN();
  }
  return 0;
}

int cross_entropy_backward(const float* x, const int64_t* target, const float* most, const float* over,
                           const float* grad, float* dx, int64_t n, int64_t V) {
  for (int64_t i = 0; i < n; ++i, x += V, dx += V) {
    const float by = over[i] * grad[i];
    int64_t j = 0;
    for (; j + W <= V; j += W) store(dx + j, exp(load(x + j) - most[i]) * by);
    for (; j < V; ++j) dx[j] = std::exp(x[j] - most[i]) * by;
    if (0 <= target[i] && target[i] < V) dx[target[i]] -= grad[i];
  }
  return 0;
}
}
