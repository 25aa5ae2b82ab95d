#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/container_record.h"

/// The value forms of `run`, `create` and `exec` that need more than one line to read. Pure functions: what they need
/// of the outside is given to them. All throw UsageError naming the option and the text. source: podman-run(1)
namespace kelp::cli {

using store::StringMap;
using store::Strings;

/// The caller's environment as NAME → value.
StringMap host_environment();

/// -e: NAME=value; NAME (taken from the host, nothing when it has none); PRE* (all host variables that begin so).
void apply_env(StringMap& env, std::string_view text, const StringMap& host);
/// Lines of an --env-file: as -e, empty lines and lines that begin with # are skipped. `origin` is for messages.
void apply_env_file(StringMap& env, std::string_view text, std::string_view origin, const StringMap& host);
/// The same as a list in order, for exec.
Strings env_list(const StringMap& env);

/// --entrypoint: "" or [""] = none, a JSON array, or one word.
Strings parse_entrypoint(std::string_view text);
/// --health-cmd: none, a JSON array, or a shell line. Not for an empty one, which stands for none given.
Strings parse_health_command(std::string_view text);
/// --health-interval: a duration, or "disable" = 0.
std::chrono::nanoseconds parse_health_duration(std::string_view text, std::string_view what);

/// --health-log-destination: local, or an absolute path.
std::string check_health_log(std::string_view text);

/// --restart: no, always, unless-stopped, on-failure[:N].
void parse_restart(std::string_view text, std::string& policy, unsigned& max);

/// --ulimit name=soft[:hard]; -1 = unlimited.
store::Ulimit parse_ulimit(std::string_view text);
/// Of two limits of one name the later one counts; those of the caller only where none is given.
void add_ulimit(std::vector<store::Ulimit>& limits, store::Ulimit limit);
/// --ulimit host: the lines of /proc/self/limits as ulimits.
std::vector<store::Ulimit> parse_limits_file(std::string_view text);

/// --expose "80", "80-82/udp" as single "80/tcp" entries.
Strings parse_expose(std::string_view text);
/// "KEY=value" lines of a --label-file.
void apply_label_file(StringMap& labels, std::string_view text, std::string_view origin);
/// --sysctl, --annotation: a key and a value, both needed.
void apply_key_value(StringMap& map, std::string_view text, std::string_view option);
/// The same with several, "a=1,b=2"; a comma that none follows belongs to the value ("ports=80,81"). "" = nothing.
void apply_key_values(StringMap& map, std::string_view text, std::string_view option);
/// --detach-keys "ctrl-p,ctrl-q": checked, returned as it is; "" = none.
std::string check_detach_keys(std::string_view text);
/// --platform from the three single options; throws when both ways are used.
std::string join_platform(const std::string& platform, const std::string& os, const std::string& arch,
                          const std::string& variant);
/// The spellings that podman has besides always, missing, never and newer: "Always", "IfNotPresent", "ifnewer".
std::string pull_policy(const std::string& text);
/// -a: stdin, stdout or stderr in any case.
std::string parse_attach(std::string_view text);
/// --add-host name[;name…]:ip; host-gateway is a valid address.
void check_add_host(std::string_view text);

}  // namespace kelp::cli
