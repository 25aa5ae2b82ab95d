#include "engine/settings.h"

#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "base/toml.h"
#include "engine/network.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

std::string settings_path() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config == '/') return std::string(config) + "/kelp/kelp.toml";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.config/kelp/kelp.toml" : "";
}

[[noreturn]] void throw_at(const std::string& path, const toml::node& node, const std::string& problem) {
  throw_usage("{}:{}: {}", path, node.source().begin.line, problem);
}

/// What is wrong with it, "" = nothing.
std::string take_network(Settings& settings, std::string_view key, const toml::node& value) {
  if (key != "default") return "unknown setting";
  const auto text = value.value_exact<std::string>();
  if (!text) return "must be a string";
  settings.networks = {*text};
  try {
    parse_network_mode(settings.networks);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

std::string take_store(Settings& settings, std::string_view key, const toml::node& value) {
  if (key != "keep-blobs") return "unknown setting";
  const auto keep = value.value_exact<bool>();
  if (!keep) return "must be true or false";
  settings.keep_blobs = *keep;
  return "";
}

void read(Settings& settings, const toml::table& top, const std::string& path) {
  for (const auto& [name, node] : top) {
    const toml::table* table = node.as_table();
    const bool network = name.str() == "network";
    if ((!network && name.str() != "store") || table == nullptr)
      throw_at(path, node, fmt::format("unknown setting {} (there are: [network], [store])", quoted(name.str())));
    for (const auto& [key, value] : *table) {
      const std::string problem = (network ? take_network : take_store)(settings, key.str(), value);
      if (!problem.empty()) throw_at(path, value, fmt::format("{}.{}: {}", name.str(), printable(key.str()), problem));
    }
  }
}

}  // namespace

Settings load_settings(const store::Strings& modules) {
  Settings settings;
  const auto take = [&](const std::string& path, const std::string& text) {
    try {
      read(settings, toml::parse(text, path), path);
    } catch (const toml::parse_error& error) {
      throw_usage("{}:{}: {}", path, error.source().begin.line, printable(error.description()));
    }
  };
  const std::string path = settings_path();
  if (const auto text = path.empty() ? std::nullopt : sys::read_small_file(path)) take(path, *text);
  for (const auto& module : modules) {
    const auto text = sys::read_small_file(module);
    if (!text) throw_usage("--module: there is no file {}", quoted(module));
    take(module, *text);
  }
  return settings;
}

}  // namespace kelp::engine
