#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/owned.h"
#include "monitor/journal.h"

namespace kelp::monitor {

enum class LogFormat {
  none,
  k8s_file,   ///< "2026-01-01T00:00:00.000000000+00:00 stdout F text": the CRI line format, P for a part of a line
  json_file,  ///< {"log":"text\n","stream":"stdout","time":"…"}: Docker's
  journal,    ///< no file: entries of systemd's journal
};

/// The container's log. A write that fails (disk full) loses that output and nothing else; one warning.
class LogFile {
 public:
  LogFile() = default;
  /// max_size   bytes after which the file becomes <path>.1, what was <path>.1 becomes <path>.2 and so on, and a new
  /// one
  ///            begins; -1 = never
  /// max_files  how many there are at most, with the one that is written
  /// throws     SysError when it cannot be opened
  LogFile(LogFormat format, std::string path, std::int64_t max_size, std::int64_t max_files = 2);
  explicit LogFile(Journal journal) : format_(LogFormat::journal), journal_(std::move(journal)) {}

  [[nodiscard]] bool keeps() const noexcept { return format_ != LogFormat::none; }
  /// One read's worth of a stream (1 stdout, 2 stderr), under one time stamp.
  void write(unsigned stream, std::string_view bytes);

 private:
  void open();
  void append_line(std::string_view prefix, std::string_view line);
  void append(std::string_view text);
  void flush();
  void rotate();

  LogFormat format_ = LogFormat::none;
  std::string path_;
  std::int64_t max_size_ = -1, max_files_ = 2, size_ = 0;
  Fd fd_;
  size_t filled_ = 0;
  bool warned_ = false, full_ = false;  ///< full_: the next line begins a new file
  Journal journal_;
};

}  // namespace kelp::monitor
