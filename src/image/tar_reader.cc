#include "image/tar_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "base/base64.h"
#include "base/error.h"
#include "base/text.h"

namespace kelp::image {

namespace {

constexpr size_t kBlock = 512;
constexpr size_t kBuffer = 256 * 1024;
constexpr std::uint64_t kMaxHeaderText = 4U << 20U;  ///< pax header or long name
constexpr size_t kMaxExtents = 1U << 20U;
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 62U;

struct Field {
  size_t offset, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12}, kMtime{136, 12},
    kChecksum{148, 8}, kLink{157, 100}, kMagic{257, 8}, kMajor{329, 8}, kMinor{337, 8}, kPrefix{345, 155};
constexpr size_t kType = 156;
// GNU's old sparse header.
constexpr size_t kSparse = 386, kSparseExtended = 482, kRealSize = 483, kMoreExtended = 504;

std::string text_field(const char* block, Field field) {
  const char* start = block + field.offset;
  return {start, strnlen(start, field.size)};
}

bool is_zero(const char* block) {
  return std::all_of(block, block + kBlock, [](char c) { return c == 0; });
}

bool checksum_fits(const char* block) {
  std::int64_t as_unsigned = 0;
  std::int64_t as_signed = 0;  // very old tars summed signed bytes
  for (size_t i = 0; i < kBlock; ++i) {
    const bool inside = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    as_unsigned += inside ? ' ' : static_cast<unsigned char>(block[i]);
    as_signed += inside ? ' ' : static_cast<signed char>(block[i]);
  }
  const std::string text = text_field(block, kChecksum);
  const auto want = to_octal(trim(text), 0777777);
  return want && (*want == as_unsigned || *want == as_signed);
}

/// "%41" as in LIBARCHIVE.xattr names.
std::string url_decoded(std::string_view text) {
  const auto hex = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
      result += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// "-12.345" → seconds and nanoseconds, rounded down.
bool parse_time(std::string_view text, std::int64_t& seconds, std::uint32_t& nanoseconds) {
  const size_t dot = text.find('.');
  const auto whole = to_int(text.substr(0, dot) == "-" ? "0" : text.substr(0, dot));
  if (!whole) return false;
  std::uint32_t fraction = 0;
  if (dot != std::string_view::npos) {
    std::string digits(text.substr(dot + 1, 9));
    if (!std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) return false;
    digits.resize(9, '0');
    fraction = static_cast<std::uint32_t>(*to_int(digits));
  }
  seconds = *whole;
  nanoseconds = fraction;
  if (starts_with(text, "-") && fraction != 0) {
    seconds -= 1;
    nanoseconds = 1'000'000'000 - fraction;
  }
  return true;
}

}  // namespace

TarReader::TarReader(Source& source, std::string what) : source_(source), what_(std::move(what)), buffer_(kBuffer) {}

void TarReader::fail(const std::string& reason) const {
  if (current_.empty()) throw_error("{}: {}", what_, reason);
  throw_error("{}: {}: {}", what_, quoted(current_), reason);
}

bool TarReader::fill() {
  if (stream_ended_) return false;
  at_ = 0;
  end_ = source_.read(buffer_.data(), buffer_.size());
  stream_ended_ = end_ == 0;
  return !stream_ended_;
}

/// false: the stream ended exactly here.
bool TarReader::read_block(char* block) {
  size_t have = 0;
  while (have < kBlock) {
    if (at_ == end_ && !fill()) {
      if (have == 0) return false;
      fail("truncated: the archive ends inside a header");
    }
    const size_t count = std::min(kBlock - have, end_ - at_);
    std::memcpy(block + have, buffer_.data() + at_, count);
    at_ += count;
    have += count;
  }
  return true;
}

std::string_view TarReader::data(size_t max) {
  if (left_ == 0) return {};
  if (at_ == end_ && !fill()) fail("truncated: the archive ends inside the data of a file");
  const size_t count = static_cast<size_t>(std::min<std::uint64_t>({left_, end_ - at_, max}));
  const std::string_view result(buffer_.data() + at_, count);
  at_ += count;
  left_ -= count;
  return result;
}

void TarReader::skip_data() {
  while (left_ > 0) data();
  left_ = std::exchange(padding_, 0);
  while (left_ > 0) data();
}

void TarReader::drain() {
  left_ = padding_ = 0;
  do {
    at_ = end_;
  } while (fill());
}

std::string TarReader::read_text(std::uint64_t size, const char* kind) {
  if (size > kMaxHeaderText) fail(fmt::format("{} of {} bytes: refused", kind, size));
  std::string text;
  left_ = size;
  padding_ = (kBlock - size % kBlock) % kBlock;
  while (left_ > 0) text += data();
  skip_data();
  return text;
}

std::int64_t TarReader::signed_number(const char* field, size_t size, const char* name) const {
  const auto first = static_cast<unsigned char>(field[0]);
  if ((first & 0x80U) != 0) {  // GNU's base-256, two's complement
    const bool negative = (first & 0x40U) != 0;
    std::uint64_t value = negative ? UINT64_MAX : 0;
    for (size_t i = 0; i < size; ++i) {
      unsigned byte = static_cast<unsigned char>(field[i]);
      if (i == 0) byte = negative ? byte | 0x80U : byte & 0x7fU;
      const std::uint64_t gone = value >> 55U;
      if (gone != 0 && gone != 0x1ff) fail(fmt::format("the field {} is too large", name));
      value = value << 8U | byte;
    }
    return static_cast<std::int64_t>(value);
  }
  size_t i = 0;
  while (i < size && (field[i] == ' ' || field[i] == 0)) ++i;
  std::uint64_t value = 0;
  for (; i < size && field[i] != ' ' && field[i] != 0; ++i) {
    if (field[i] < '0' || field[i] > '7') fail(fmt::format("the field {} is not a number", name));
    value = value * 8 + static_cast<unsigned>(field[i] - '0');
  }
  return static_cast<std::int64_t>(value);
}

std::uint64_t TarReader::number(const char* field, size_t size, const char* name) const {
  const std::int64_t value = signed_number(field, size, name);
  if (value < 0) fail(fmt::format("the field {} is negative", name));
  return static_cast<std::uint64_t>(value);
}

/// "LENGTH KEY=VALUE\n", LENGTH counting the whole record.
TarReader::Records TarReader::parse_records(const std::string& text) const {
  Records result;
  std::string_view rest = text;
  while (!rest.empty() && rest[0] != 0) {
    const size_t blank = rest.find(' ');
    const auto length = blank == std::string_view::npos
                            ? std::nullopt
                            : to_int(rest.substr(0, blank), static_cast<std::int64_t>(blank) + 3,
                                     static_cast<std::int64_t>(rest.size()));
    if (!length || rest[static_cast<size_t>(*length) - 1] != '\n') fail("damaged pax header");
    const std::string_view record = rest.substr(blank + 1, static_cast<size_t>(*length) - blank - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) fail("damaged pax header");
    result.emplace_back(record.substr(0, equals), record.substr(equals + 1));
    rest.remove_prefix(static_cast<size_t>(*length));
  }
  return result;
}

void TarReader::read_header(const char* block, TarEntry& entry) const {
  entry.name = text_field(block, kName);
  entry.link = text_field(block, kLink);
  const std::string_view magic(block + kMagic.offset, kMagic.size);
  const bool ustar = starts_with(magic, std::string_view("ustar\0", 6));
  if (ustar && block[kPrefix.offset] != 0) entry.name = text_field(block, kPrefix) + "/" + entry.name;
  entry.mode = static_cast<unsigned>(number(block + kMode.offset, kMode.size, "mode") & 07777U);
  entry.uid = number(block + kUid.offset, kUid.size, "uid");
  entry.gid = number(block + kGid.offset, kGid.size, "gid");
  entry.size = number(block + kSize.offset, kSize.size, "size");
  entry.mtime = signed_number(block + kMtime.offset, kMtime.size, "mtime");
  switch (block[kType]) {
    case 0:
    case '0':
    case '7':
    case 'S':
      entry.type = TarEntry::Type::file;
      break;
    case '1':
      entry.type = TarEntry::Type::hard_link;
      break;
    case '2':
      entry.type = TarEntry::Type::symlink;
      break;
    case '3':
      entry.type = TarEntry::Type::character;
      break;
    case '4':
      entry.type = TarEntry::Type::block;
      break;
    case '5':
      entry.type = TarEntry::Type::directory;
      break;
    case '6':
      entry.type = TarEntry::Type::fifo;
      break;
    default:
      fail(
          fmt::format("{}: unknown type of member {}", quoted(entry.name), quoted(std::string_view(block + kType, 1))));
  }
  if (entry.type == TarEntry::Type::character || entry.type == TarEntry::Type::block) {
    entry.major = static_cast<std::uint32_t>(number(block + kMajor.offset, kMajor.size, "devmajor"));
    entry.minor = static_cast<std::uint32_t>(number(block + kMinor.offset, kMinor.size, "devminor"));
  }
}

void TarReader::apply_records(const Records& records, TarEntry& entry) {
  constexpr std::string_view kSchily = "SCHILY.xattr.", kLibarchive = "LIBARCHIVE.xattr.";
  std::uint64_t sparse_offset = 0;
  bool have_offset = false;
  std::string sparse_name;
  std::optional<std::uint64_t> real_size;
  const auto count = [&](const std::string& key, std::string_view text) {
    const auto value = to_int(text, 0, static_cast<std::int64_t>(kMaxSize));
    if (!value) fail(fmt::format("pax header: {}={} is not a number", key, quoted(text)));
    return static_cast<std::uint64_t>(*value);
  };
  for (const auto& [key, value] : records) {
    if (starts_with(key, kSchily)) {
      entry.xattrs[key.substr(kSchily.size())] = value;
      continue;
    }
    if (starts_with(key, kLibarchive)) {
      auto decoded = base64_decode(value);
      if (!decoded) fail(fmt::format("pax header: {} is not base64", key));
      entry.xattrs.emplace(url_decoded(key.substr(kLibarchive.size())), std::move(*decoded));
      continue;
    }
    if (value.empty() && !starts_with(key, "GNU.sparse.")) continue;  // POSIX: as if it were not there
    const bool name_like = key == "path" || key == "linkpath" || key == "GNU.sparse.name";
    if (name_like && value.find('\0') != std::string::npos) fail(fmt::format("pax header: {} holds a NUL byte", key));
    if (key == "path") {
      entry.name = value;
    } else if (key == "linkpath") {
      entry.link = value;
    } else if (key == "size") {
      entry.size = count(key, value);
    } else if (key == "uid") {
      entry.uid = count(key, value);
    } else if (key == "gid") {
      entry.gid = count(key, value);
    } else if (key == "mtime") {
      if (!parse_time(value, entry.mtime, entry.mtime_nsec)) fail("pax header: mtime is not a time");
    } else if (key == "GNU.sparse.name") {
      sparse_name = value;
    } else if (key == "GNU.sparse.size" || key == "GNU.sparse.realsize") {
      entry.sparse = true;
      real_size = count(key, value);
    } else if (key == "GNU.sparse.offset") {
      sparse_offset = count(key, value);
      have_offset = true;
    } else if (key == "GNU.sparse.numbytes") {
      if (!std::exchange(have_offset, false)) fail("pax header: GNU.sparse.numbytes without an offset");
      entry.sparse = true;
      entry.extents.emplace_back(sparse_offset, count(key, value));
    } else if (key == "GNU.sparse.map") {
      entry.sparse = true;
      const std::vector<std::string> numbers = split(value, ',');
      if (numbers.size() % 2 != 0) fail("pax header: GNU.sparse.map has an odd number of entries");
      entry.extents.clear();
      for (size_t i = 0; i < numbers.size(); i += 2) {
        entry.extents.emplace_back(count(key, numbers[i]), count(key, numbers[i + 1]));
      }
    }
    if (entry.extents.size() > kMaxExtents) fail("sparse file in too many pieces");
  }
  if (!sparse_name.empty()) entry.name = sparse_name;
  entry.stored = entry.size;
  if (entry.sparse && real_size) entry.size = *real_size;
}

void TarReader::read_old_sparse(const char* block, TarEntry& entry) {
  entry.sparse = true;
  const auto add = [&](const char* field) {
    if (field[0] == 0) return false;
    entry.extents.emplace_back(number(field, 12, "sparse offset"), number(field + 12, 12, "sparse length"));
    return true;
  };
  for (size_t i = 0; i < 4 && add(block + kSparse + i * 24); ++i) {
  }
  bool more = block[kSparseExtended] != 0;
  std::array<char, kBlock> next{};
  while (more) {
    if (!read_block(next.data())) fail("truncated: the archive ends inside a header");
    for (size_t i = 0; i < 21 && add(next.data() + i * 24); ++i) {
    }
    if (entry.extents.size() > kMaxExtents) fail("sparse file in too many pieces");
    more = next[kMoreExtended] != 0;
  }
  entry.size = number(block + kRealSize, 12, "real size");
}

/// GNU sparse 1.0: the map stands in front of the data as decimal lines, padded to a block.
void TarReader::read_sparse_map(TarEntry& entry) {
  std::uint64_t used = 0;
  std::string_view block;
  std::string held;
  const auto line = [&]() -> std::uint64_t {
    std::string text;
    for (;;) {
      if (block.empty()) {
        held.clear();
        while (held.size() < kBlock) {
          const std::string_view part = data(kBlock - held.size());
          if (part.empty()) fail("damaged sparse map");
          held += part;
        }
        used += kBlock;
        block = held;
      }
      const char c = block[0];
      block.remove_prefix(1);
      if (c == '\n') break;
      text += c;
      if (text.size() > 20) fail("damaged sparse map");
    }
    const auto value = to_int(text, 0, static_cast<std::int64_t>(kMaxSize));
    if (!value) fail("damaged sparse map");
    return static_cast<std::uint64_t>(*value);
  };
  const std::uint64_t count = line();
  if (count > kMaxExtents) fail("sparse file in too many pieces");
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t offset = line();
    entry.extents.emplace_back(offset, line());
  }
  entry.stored -= used;
}

void TarReader::check_sparse(TarEntry& entry) const {
  std::uint64_t end = 0;
  std::uint64_t sum = 0;
  std::erase_if(entry.extents, [&](const auto& extent) { return extent.second == 0; });
  for (const auto& [offset, length] : entry.extents) {
    if (offset < end || offset > entry.size || length > entry.size - offset) fail("damaged sparse map");
    end = offset + length;
    sum += length;
  }
  if (sum != entry.stored) fail("the sparse map does not fit the data");
}

bool TarReader::next(TarEntry& entry) {
  skip_data();
  entry = TarEntry();
  current_.clear();
  std::array<char, kBlock> block{};
  std::optional<std::string> long_name;
  std::optional<std::string> long_link;
  Records records = global_;
  for (;;) {
    if (!read_block(block.data())) {
      if (long_name || long_link) fail("truncated: the archive ends after a long name");
      return false;
    }
    if (is_zero(block.data())) {
      if (read_block(block.data()) && !is_zero(block.data())) fail("damaged: a lone block of zeros between members");
      return false;
    }
    if (!checksum_fits(block.data())) fail("not a tar archive, or a damaged one (checksum of a header)");
    const char type = block[kType];
    const auto text = [&](const char* kind) {
      return read_text(number(block.data() + kSize.offset, kSize.size, "size"), kind);
    };
    if (type == 'L' || type == 'K') {
      std::string name = text("long name");
      name.resize(strnlen(name.c_str(), name.size()));
      (type == 'L' ? long_name : long_link) = std::move(name);
    } else if (type == 'x' || type == 'X') {
      for (auto& record : parse_records(text("pax header"))) records.push_back(std::move(record));
    } else if (type == 'g') {
      for (auto& record : parse_records(text("pax header"))) {
        records.push_back(record);
        global_.push_back(std::move(record));
        if (global_.size() > 10'000) fail("too many global pax records");
      }
    } else if (type == 'V') {
      text("volume label");
    } else {
      break;
    }
  }
  read_header(block.data(), entry);
  current_ = long_name.value_or(entry.name);
  if (long_name) entry.name = *long_name;
  if (long_link) entry.link = *long_link;
  const bool old_sparse = block[kType] == 'S';
  apply_records(records, entry);
  if (old_sparse) read_old_sparse(block.data(), entry);
  current_ = entry.name;
  // v7 has no type for directories.
  if (entry.type == TarEntry::Type::file && ends_with(entry.name, "/")) entry.type = TarEntry::Type::directory;
  // As Go's archive/tar: these have no data, whatever their size field says.
  if (entry.type != TarEntry::Type::file) entry.size = entry.stored = 0;
  if (entry.stored > kMaxSize || entry.size > kMaxSize) fail("the size is too large");
  left_ = entry.stored;
  padding_ = (kBlock - entry.stored % kBlock) % kBlock;
  if (entry.sparse) {
    const bool map_in_data = std::any_of(records.begin(), records.end(), [](const auto& record) {
      return record.first == "GNU.sparse.major" && record.second == "1";
    });
    if (map_in_data) read_sparse_map(entry);
    check_sparse(entry);
  }
  return true;
}

}  // namespace kelp::image
