#include "image/compression.h"

#include <lzma.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY  // for memory of our own
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <archive.h>
#include <archive_entry.h>

#if __has_include(<isa-l/igzip_lib.h>)
#include <isa-l/igzip_lib.h>
#define KELP_HAS_ISAL 1
#endif

#include "base/error.h"
#include "image/decoder_memory.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 256 * 1024;

/// Input of a decompressor: what was peeked at, then the rest of the source.
class Input {
 public:
  explicit Input(Source& inner) : inner_(inner), buffer_(kBuffer) {}

  /// At least `wanted` bytes in the buffer unless the source ends before.
  void peek(size_t wanted) {
    while (size_ - position_ < wanted && !ended_) fill_more();
  }
  /// Something to read, or the end.
  bool more() {
    if (position_ < size_) return true;
    position_ = size_ = 0;
    if (!ended_) fill_more();
    return position_ < size_;
  }
  [[nodiscard]] const char* data() const { return buffer_.data() + position_; }
  [[nodiscard]] size_t size() const { return size_ - position_; }
  void take(size_t count) { position_ += count; }
  [[nodiscard]] std::uint64_t consumed() const { return total_ - (size_ - position_); }

 private:
  void fill_more() {
    const size_t got = inner_.read(buffer_.data() + size_, buffer_.size() - size_);
    if (got == 0) ended_ = true;
    size_ += got;
    total_ += got;
  }

  Source& inner_;
  std::vector<char> buffer_;
  size_t position_ = 0, size_ = 0;
  std::uint64_t total_ = 0;
  bool ended_ = false;
};

/// One format's stream; inflate() gives 0 at the end.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual size_t inflate(Input& input, char* out, size_t size, const std::string& what) = 0;
};

class PlainDecoder : public Decoder {
 public:
  size_t inflate(Input& input, char* out, size_t size, const std::string&) override {
    if (!input.more()) return 0;
    const size_t count = std::min(size, input.size());
    std::memcpy(out, input.data(), count);
    input.take(count);
    return count;
  }
};

bool gzip_follows(Input& input) {
  input.peek(2);
  return input.size() >= 2 && static_cast<unsigned char>(input.data()[0]) == 0x1f &&
         static_cast<unsigned char>(input.data()[1]) == 0x8b;
}

#ifdef KELP_HAS_ISAL
class GzipDecoder : public Decoder {
 public:
  GzipDecoder() : state_(std::make_unique<inflate_state>()) { start(); }

  size_t inflate(Input& input, char* out, size_t size, const std::string& what) override {
    if (done_) return 0;
    state_->next_out = reinterpret_cast<std::uint8_t*>(out);
    state_->avail_out = static_cast<std::uint32_t>(std::min<size_t>(size, UINT32_MAX));
    const std::uint32_t room = state_->avail_out;
    while (state_->avail_out == room) {
      if (state_->block_state == ISAL_BLOCK_FINISH) {
        // Another member may follow; anything else behind the last one is padding, as gzip(1) sees it.
        if (!gzip_follows(input)) {
          done_ = true;
          return 0;
        }
        std::uint8_t* const next = state_->next_out;
        start();
        state_->next_out = next;
        state_->avail_out = room;
      }
      const bool ended = !input.more();
      state_->next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(input.data()));
      state_->avail_in = static_cast<std::uint32_t>(ended ? 0 : input.size());
      const std::uint32_t offered = state_->avail_in;
      const int status = isal_inflate(state_.get());
      if (status != ISAL_DECOMP_OK) throw_error("{}: damaged gzip data", what);
      if (!ended) input.take(offered - state_->avail_in);
      if (ended && state_->avail_out == room && state_->block_state != ISAL_BLOCK_FINISH) {
        throw_error("{}: truncated: the gzip data ends too early", what);
      }
    }
    return room - state_->avail_out;
  }

 private:
  void start() {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;  // checks the member's CRC and length, too
  }
  std::unique_ptr<inflate_state> state_;
  bool done_ = false;
};
#else
class GzipDecoder : public Decoder {
 public:
  GzipDecoder() {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) throw_error("start zlib");
  }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;
  ~GzipDecoder() override { inflateEnd(&stream_); }

  size_t inflate(Input& input, char* out, size_t size, const std::string& what) override {
    if (done_) return 0;
    const auto room = static_cast<uInt>(std::min<size_t>(size, UINT32_MAX));
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = room;
    while (stream_.avail_out == room) {
      if (member_ended_) {
        if (!gzip_follows(input)) {
          done_ = true;
          return 0;
        }
        inflateReset(&stream_);
        member_ended_ = false;
      }
      const bool ended = !input.more();
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
      stream_.avail_in = static_cast<uInt>(ended ? 0 : input.size());
      const uInt offered = stream_.avail_in;
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
        throw_error("{}: damaged gzip data", what);
      }
      if (!ended) input.take(offered - stream_.avail_in);
      member_ended_ = status == Z_STREAM_END;
      if (ended && stream_.avail_out == room && !member_ended_) {
        throw_error("{}: truncated: the gzip data ends too early", what);
      }
    }
    return room - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool member_ended_ = false, done_ = false;
};
#endif

class ZstdDecoder : public Decoder {
 public:
  explicit ZstdDecoder(const std::string& scratch) : window_(scratch) {
    const ZSTD_customMem memory{
        [](void* window, size_t size) { return static_cast<DecoderMemory*>(window)->allocate(size); },
        [](void* window, void* block) { static_cast<DecoderMemory*>(window)->free(block); }, &window_};
    context_.reset(ZSTD_createDCtx_advanced(memory));
    if (!context_) throw_error("start zstd");
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, 27);  // 128 MiB: what zstd(1) accepts
  }

  size_t inflate(Input& input, char* out, size_t size, const std::string& what) override {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0) {
      if (!input.more()) {
        if (pending_ != 0) throw_error("{}: truncated: the zstd data ends too early", what);
        return 0;
      }
      ZSTD_inBuffer source{input.data(), input.size(), 0};
      pending_ = ZSTD_decompressStream(context_.get(), &output, &source);
      if (ZSTD_isError(pending_) != 0) fail(what);
      input.take(source.pos);
    }
    window_.passed(output.pos);
    return output.pos;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    switch (ZSTD_getErrorCode(pending_)) {
      case ZSTD_error_frameParameter_windowTooLarge:
        throw Error(what + ": its zstd data wants a window of more than 128 MiB: refused")
            .with_hint("zstd --long=27 is the most that is taken");
      case ZSTD_error_memory_allocation:
        throw SysError(what + ": make room for its zstd window", window_.failure() != 0 ? window_.failure() : ENOMEM);
      default:
        throw_error("{}: damaged zstd data ({})", what, ZSTD_getErrorName(pending_));
    }
  }

  DecoderMemory window_;  // first: the context's memory is in it
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_{nullptr, ZSTD_freeDCtx};
  size_t pending_ = 0;
};

/// With liblzma, not libarchive's filter around it: that one gives the dictionary whatever memory the data asks for.
class XzDecoder : public Decoder {
 public:
  explicit XzDecoder(const std::string& scratch) : memory_(scratch) {
    stream_.allocator = &allocator_;
    if (::lzma_stream_decoder(&stream_, kMost, LZMA_CONCATENATED) != LZMA_OK) throw_error("start xz");
  }
  XzDecoder(const XzDecoder&) = delete;
  XzDecoder& operator=(const XzDecoder&) = delete;
  ~XzDecoder() override { ::lzma_end(&stream_); }

  size_t inflate(Input& input, char* out, size_t size, const std::string& what) override {
    stream_.next_out = reinterpret_cast<std::uint8_t*>(out);
    stream_.avail_out = size;
    while (!done_ && stream_.avail_out == size) {
      const bool ended = !input.more();
      const size_t offered = ended ? 0 : input.size();
      stream_.next_in = reinterpret_cast<const std::uint8_t*>(input.data());
      stream_.avail_in = offered;
      const lzma_ret status = ::lzma_code(&stream_, ended ? LZMA_FINISH : LZMA_RUN);
      input.take(offered - stream_.avail_in);
      done_ = status == LZMA_STREAM_END;
      if (status != LZMA_OK && !done_) fail(status, what);
    }
    memory_.passed(size - stream_.avail_out);
    return size - stream_.avail_out;
  }

 private:
  static constexpr std::uint64_t kMost = (128U << 20U) + (1U << 20U);  ///< as for zstd, and what is around it

  [[noreturn]] void fail(lzma_ret status, const std::string& what) const {
    switch (status) {
      case LZMA_MEMLIMIT_ERROR:
        throw Error(what + ": its xz data wants a dictionary of more than 128 MiB: refused")
            .with_hint("xz -9 wants 64 MiB");
      case LZMA_MEM_ERROR:
        throw SysError(what + ": make room for its xz dictionary", memory_.failure() != 0 ? memory_.failure() : ENOMEM);
      case LZMA_BUF_ERROR:
        throw_error("{}: truncated: the xz data ends too early", what);
      default:
        throw_error("{}: damaged xz data", what);
    }
  }

  DecoderMemory memory_;  // first: the stream's memory is in it
  lzma_allocator allocator_{[](void* memory, size_t count, size_t size) {
                              return static_cast<DecoderMemory*>(memory)->allocate(count * size);
                            },
                            [](void* memory, void* block) { static_cast<DecoderMemory*>(memory)->free(block); },
                            &memory_};
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool done_ = false;
};

/// bzip2 is rare: libarchive's filter in front of its "raw" format.
class Bzip2Decoder : public Decoder {
 public:
  Bzip2Decoder() : archive_(archive_read_new(), archive_read_free) {
    if (!archive_) throw_error("start libarchive");
    archive_read_support_filter_bzip2(archive_.get());
    archive_read_support_format_raw(archive_.get());
  }

  size_t inflate(Input& input, char* out, size_t size, const std::string& what) override {
    if (!open_) {
      input_ = &input;
      archive_entry* entry = nullptr;
      if (archive_read_open(archive_.get(), this, nullptr, &Bzip2Decoder::give, nullptr) != ARCHIVE_OK ||
          archive_read_next_header(archive_.get(), &entry) != ARCHIVE_OK) {
        throw_error("{}: damaged compressed data ({})", what, reason());
      }
      open_ = true;
    }
    const la_ssize_t got = archive_read_data(archive_.get(), out, size);
    if (got < 0) throw_error("{}: damaged or truncated compressed data ({})", what, reason());
    return static_cast<size_t>(got);
  }

 private:
  std::string reason() {
    const char* text = archive_error_string(archive_.get());
    return text != nullptr ? text : "unknown";
  }
  static la_ssize_t give(archive*, void* context, const void** data) {
    auto& self = *static_cast<Bzip2Decoder*>(context);
    self.input_->take(self.given_);
    self.given_ = 0;
    if (!self.input_->more()) return 0;
    *data = self.input_->data();
    self.given_ = self.input_->size();
    return static_cast<la_ssize_t>(self.given_);
  }

  std::unique_ptr<archive, int (*)(archive*)> archive_;
  Input* input_ = nullptr;
  size_t given_ = 0;
  bool open_ = false;
};

class DecompressingSource : public Source {
 public:
  DecompressingSource(Source& inner, std::string what, InflateLimits limits)
      : input_(inner), what_(std::move(what)), limits_(std::move(limits)) {}

  size_t read(void* buffer, size_t size) override {
    if (!decoder_) decoder_ = choose();
    const size_t got = decoder_->inflate(input_, static_cast<char*>(buffer), size, what_);
    total_ += got;
    if (total_ > limits_.max_bytes) throw_error("{}: more than {} bytes uncompressed", what_, limits_.max_bytes);
    if (total_ > limits_.judged_after && total_ / limits_.max_ratio > input_.consumed()) {
      throw_error("{}: expands more than {} times, and to more than there is room for: refused", what_,
                  limits_.max_ratio);
    }
    return got;
  }

 private:
  std::unique_ptr<Decoder> choose() {
    input_.peek(6);
    switch (detect_compression({input_.data(), input_.size()})) {
      case Compression::gzip:
        return std::make_unique<GzipDecoder>();
      case Compression::zstd:
        return std::make_unique<ZstdDecoder>(limits_.scratch);
      case Compression::xz:
        return std::make_unique<XzDecoder>(limits_.scratch);
      case Compression::bzip2:
        return std::make_unique<Bzip2Decoder>();
      case Compression::none:
        break;
    }
    return std::make_unique<PlainDecoder>();
  }

  Input input_;
  std::string what_;
  InflateLimits limits_;
  std::unique_ptr<Decoder> decoder_;
  std::uint64_t total_ = 0;
};

class PlainSink : public Sink {
 public:
  explicit PlainSink(Sink& inner) : inner_(inner) {}
  void write(const void* data, size_t size) override { inner_.write(data, size); }
  void finish() override { inner_.finish(); }

 private:
  Sink& inner_;
};

class GzipSink : public Sink {
 public:
  GzipSink(Sink& inner, int level) : inner_(inner), buffer_(kBuffer) {
    // zlib writes neither name nor time: equal input gives equal bytes.
    if (deflateInit2(&stream_, level == 0 ? 6 : level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      throw_error("start zlib");
    }
  }
  GzipSink(const GzipSink&) = delete;
  GzipSink& operator=(const GzipSink&) = delete;
  ~GzipSink() override { deflateEnd(&stream_); }

  void write(const void* data, size_t size) override {
    const auto* bytes = static_cast<const Bytef*>(data);
    while (size > 0) {
      const auto part = static_cast<uInt>(std::min<size_t>(size, 1U << 30U));
      stream_.next_in = const_cast<Bytef*>(bytes);
      stream_.avail_in = part;
      run(Z_NO_FLUSH);
      bytes += part;
      size -= part;
    }
  }
  void finish() override {
    run(Z_FINISH);
    inner_.finish();
  }

 private:
  void run(int flush) {
    int status = Z_OK;
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      status = deflate(&stream_, flush);
      if (status == Z_STREAM_ERROR) throw_error("zlib: stream error");
      inner_.write(buffer_.data(), buffer_.size() - stream_.avail_out);
    } while (stream_.avail_out == 0 || (flush == Z_FINISH && status != Z_STREAM_END));
  }

  Sink& inner_;
  z_stream stream_{};
  std::vector<char> buffer_;
};

class ZstdSink : public Sink {
 public:
  ZstdSink(Sink& inner, int level) : inner_(inner), context_(ZSTD_createCCtx(), ZSTD_freeCCtx), buffer_(kBuffer) {
    if (!context_) throw_error("start zstd");
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level == 0 ? 3 : level);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }
  void write(const void* data, size_t size) override {
    ZSTD_inBuffer source{data, size, 0};
    while (source.pos < source.size) run(source, ZSTD_e_continue);
  }
  void finish() override {
    ZSTD_inBuffer source{nullptr, 0, 0};
    while (run(source, ZSTD_e_end) != 0) {
    }
    inner_.finish();
  }

 private:
  size_t run(ZSTD_inBuffer& source, ZSTD_EndDirective directive) {
    ZSTD_outBuffer output{buffer_.data(), buffer_.size(), 0};
    const size_t left = ZSTD_compressStream2(context_.get(), &output, &source, directive);
    if (ZSTD_isError(left) != 0) throw_error("zstd: {}", ZSTD_getErrorName(left));
    inner_.write(buffer_.data(), output.pos);
    return left;
  }

  Sink& inner_;
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context_;
  std::vector<char> buffer_;
};

}  // namespace

namespace {

InflateLimits for_room(const struct statvfs& disk, std::string directory) {
  InflateLimits limits;
  limits.scratch = std::move(directory);
  limits.judged_after = std::max(limits.judged_after, std::uint64_t{disk.f_bavail} * disk.f_frsize);
  return limits;
}

}  // namespace

InflateLimits InflateLimits::for_room_in(const std::string& directory) {
  struct statvfs disk {};
  return ::statvfs(directory.c_str(), &disk) == 0 ? for_room(disk, directory) : InflateLimits();
}

InflateLimits InflateLimits::for_room_at(int fd) {
  struct statvfs disk {};
  return ::fstatvfs(fd, &disk) == 0 ? for_room(disk, "/proc/self/fd/" + std::to_string(fd)) : InflateLimits();
}

InflateLimits InflateLimits::none() {
  InflateLimits limits;
  limits.judged_after = UINT64_MAX;
  return limits;
}

const char* compression_name(Compression compression) noexcept {
  switch (compression) {
    case Compression::gzip:
      return "gzip";
    case Compression::zstd:
      return "zstd";
    case Compression::xz:
      return "xz";
    case Compression::bzip2:
      return "bzip2";
    case Compression::none:
      break;
  }
  return "none";
}

Compression detect_compression(std::string_view first) noexcept {
  const auto begins = [&](std::string_view magic) { return first.substr(0, magic.size()) == magic; };
  if (begins("\x1f\x8b")) return Compression::gzip;
  if (begins("\x28\xb5\x2f\xfd")) return Compression::zstd;
  // A skippable frame (0x184D2A50–5F) may stand first, as in chunked layers.
  if (first.size() >= 4 && (static_cast<unsigned char>(first[0]) & 0xf0U) == 0x50U &&
      first.substr(1, 3) == "\x2a\x4d\x18") {
    return Compression::zstd;
  }
  if (begins(std::string_view("\xfd"
                              "7zXZ\0",
                              6)))
    return Compression::xz;
  if (begins("BZh")) return Compression::bzip2;
  return Compression::none;
}

size_t FdSource::read(void* buffer, size_t size) {
  for (;;) {
    const ssize_t got = ::read(fd_, buffer, size);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) throw_errno("read {}", what_);
  }
}

size_t HashingSource::read(void* buffer, size_t size) {
  const size_t got = inner_.read(buffer, size);
  if (got > 0) hash_.update(buffer, got);
  count_ += got;
  return got;
}

std::unique_ptr<Source> decompress(Source& inner, std::string what, InflateLimits limits) {
  return std::make_unique<DecompressingSource>(inner, std::move(what), std::move(limits));
}

void FdSink::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, bytes, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_errno("write {}", what_);
    }
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

void HashingSink::write(const void* data, size_t size) {
  hash_.update(data, size);
  count_ += size;
  if (inner_ != nullptr) inner_->write(data, size);
}

void HashingSink::finish() {
  if (inner_ != nullptr) inner_->finish();
}

std::unique_ptr<Sink> compress(Sink& inner, Compression compression, int level) {
  switch (compression) {
    case Compression::none:
      return std::make_unique<PlainSink>(inner);
    case Compression::gzip:
      return std::make_unique<GzipSink>(inner, level);
    case Compression::zstd:
      return std::make_unique<ZstdSink>(inner, level);
    case Compression::xz:
    case Compression::bzip2:
      break;
  }
  throw_usage("compression {}: choose none, gzip or zstd", compression_name(compression));
}

}  // namespace kelp::image
