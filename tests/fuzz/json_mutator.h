#pragma once

#include <cstddef>
#include <cstdint>

namespace kelp::fuzz {

/// Changes a JSON document as a document: members removed, copied to other places, strings and numbers changed. Bytes
/// changed at random are refused by the JSON parser nine times of ten, and what stands behind it is never reached.
///
/// data      the document, in a buffer of max_size bytes; anything that is no JSON is changed byte by byte
/// returns   the new size
std::size_t mutate_json(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed);

/// A part of b in the place of a part of a, into out (max_size bytes).
/// returns  the size; 0 when one of both is no JSON or the result does not fit
std::size_t cross_json(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size,
                       std::uint8_t* out, std::size_t max_size, unsigned seed);

}  // namespace kelp::fuzz

/// Both for a target whose input is JSON: stands once in its source.
#define KELP_FUZZ_JSON                                                                                               \
  extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,         \
                                                 unsigned seed) {                                                    \
    return kelp::fuzz::mutate_json(data, size, max_size, seed);                                                      \
  }                                                                                                                  \
  extern "C" std::size_t LLVMFuzzerCustomCrossOver(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, \
                                                   std::size_t b_size, std::uint8_t* out, std::size_t max_size,      \
                                                   unsigned seed) {                                                  \
    return kelp::fuzz::cross_json(a, a_size, b, b_size, out, max_size, seed);                                        \
  }
