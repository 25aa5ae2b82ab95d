#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/logs.h"
#include "store/container_record.h"

/// --log-driver journald: the monitor writes (monitor/journal.h), journalctl reads.
namespace kelp::engine {

inline constexpr const char* kJournalSocket = "/run/systemd/journal/socket";

/// throws Error with a hint where no journal listens
void check_journal();

/// What each entry of a container carries, by podman's names: "CONTAINER_NAME=web\n…".
std::string journal_fields(const store::ContainerRecord& record);

/// One line of `journalctl --output json`. nullopt: damaged, or without a message.
std::optional<LogEntry> parse_journal_line(std::string_view line);

/// As read_logs(). throws Error with a hint where journalctl is missing or says why it cannot read
void read_journal(const store::ContainerRecord& record, const LogOptions& options,
                  const std::function<bool()>& still_runs, const std::function<bool(const LogEntry&)>& take);

}  // namespace kelp::engine
