#pragma once

#include <string>
#include <string_view>

#include "base/owned.h"

namespace kelp::monitor {

/// Output as entries of systemd's journal, in its native protocol: a datagram each, with the fields that podman's
/// entries have. A journal that does not take them in time loses that output and nothing else; one warning.
class Journal {
 public:
  Journal() = default;
  /// socket: /run/systemd/journal/socket; fields: "NAME=value\n" lines that each entry carries. throws SysError
  Journal(const std::string& socket, std::string fields);

  /// One read's worth of a stream (1 stdout, 2 stderr): an entry for each line, and one that is marked as a part for
  /// what follows the last newline.
  void write(unsigned stream, std::string_view bytes);

 private:
  void send(unsigned stream, std::string_view line, bool partial);

  Fd socket_;
  std::string fields_;
  bool warned_ = false;
};

}  // namespace kelp::monitor
