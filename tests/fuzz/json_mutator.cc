#include "fuzz/json_mutator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace kelp::fuzz {
namespace {

using Json = nlohmann::ordered_json;
using Random = std::minstd_rand;

constexpr std::size_t kMaxString = 256;

std::size_t below(Random& random, std::size_t count) {
  return std::uniform_int_distribution<std::size_t>(0, count - 1)(random);
}

void collect(Json& value, std::vector<Json*>& all) {
  all.push_back(&value);
  if (value.is_structured())
    for (Json& item : value) collect(item, all);
}

Json& pick(Json& document, Random& random) {
  std::vector<Json*> all;
  collect(document, all);
  return *all[below(random, all.size())];
}

Json interesting(Random& random) {
  static const std::array<Json, 18> kValues = {
      Json(nullptr), Json(true),      Json(false),      Json(0),           Json(1),         Json(-1),
      Json(65536),   Json(INT32_MAX), Json(UINT32_MAX), Json(INT64_MAX),   Json(INT64_MIN), Json(UINT64_MAX),
      Json(1.5),     Json(""),        Json("/"),        Json("../../etc"), Json::array(),   Json::object()};
  return kValues[below(random, kValues.size())];
}

std::string mutated(const std::string& text) {
  std::array<std::uint8_t, kMaxString> buffer;
  const std::size_t size = std::min(text.size(), buffer.size() / 2);
  std::memcpy(buffer.data(), text.data(), size);
  const std::size_t length = LLVMFuzzerMutate(buffer.data(), size, buffer.size());
  return {reinterpret_cast<const char*>(buffer.data()), length};
}

Json::iterator any_item(Json& value, Random& random) {
  return std::next(value.begin(), static_cast<std::ptrdiff_t>(below(random, value.size())));
}

void change_number(Json& value, Random& random) {
  const std::uint64_t old = value.is_number_float() ? 1 : value.get<std::uint64_t>();
  switch (below(random, 4)) {
    case 0:
      value = old + 1;
      break;
    case 1:
      value = old - 1;
      break;
    case 2:
      value = old << below(random, 64);
      break;
    default:
      value = static_cast<std::int64_t>(random()) - INT32_MAX;
      break;
  }
}

void change(Json& document, Random& random) {
  Json& value = pick(document, random);
  const std::size_t choice = below(random, 8);
  if (choice == 0) {
    value = interesting(random);
  } else if (choice == 1) {
    value = Json(pick(document, random));
  } else if (value.is_array() && !value.empty()) {
    if (choice < 4)
      value.erase(any_item(value, random));
    else if (choice < 6)
      value.push_back(Json(pick(document, random)));
    else
      value.push_back(Json(*any_item(value, random)));
  } else if (value.is_object() && !value.empty()) {
    const auto item = any_item(value, random);
    if (choice < 4)
      value.erase(item);
    else if (choice < 6)
      value[item.key()] = Json(pick(document, random));
    else
      value[mutated(item.key())] = Json(item.value());
  } else if (value.is_string()) {
    value = mutated(value.get_ref<const std::string&>());
  } else if (value.is_number()) {
    change_number(value, random);
  } else {
    value = interesting(random);
  }
}

Json parse(const std::uint8_t* data, std::size_t size) { return Json::parse(data, data + size, nullptr, false); }

std::size_t write(const Json& document, std::uint8_t* out, std::size_t max_size) {
  const std::string text = document.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > max_size) return 0;
  std::memcpy(out, text.data(), text.size());
  return text.size();
}

}  // namespace

std::size_t mutate_json(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  Random random(seed);
  if (below(random, 16) == 0) return LLVMFuzzerMutate(data, size, max_size);
  Json document = parse(data, size);
  if (document.is_discarded()) return LLVMFuzzerMutate(data, size, max_size);
  for (std::size_t changes = 1 + below(random, 4); changes > 0; --changes) change(document, random);
  const std::size_t length = write(document, data, max_size);
  return length != 0 ? length : LLVMFuzzerMutate(data, size, max_size);
}

std::size_t cross_json(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size,
                       std::uint8_t* out, std::size_t max_size, unsigned seed) {
  Random random(seed);
  Json first = parse(a, a_size), second = parse(b, b_size);
  if (first.is_discarded() || second.is_discarded()) return 0;
  if (first.is_object() && second.is_object() && !second.empty() && below(random, 2) == 0) {
    const auto item = any_item(second, random);
    first[item.key()] = item.value();
  } else {
    pick(first, random) = Json(pick(second, random));
  }
  return write(first, out, max_size);
}

}  // namespace kelp::fuzz
