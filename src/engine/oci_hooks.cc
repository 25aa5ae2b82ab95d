#include "engine/oci_hooks.h"

#include <dirent.h>

#include <cerrno>
#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/pattern.h"
#include "base/text.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

using Json = nlohmann::json;

/// name → path
void find_files(const std::string& directory, std::map<std::string, std::string>& found) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), ::closedir);
  if (!dir) throw_errno("--hooks-dir {}", directory);
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (ends_with(name, ".json")) found[name] = directory + "/" + name;
  }
}

/// All the conditions that stand there must hold, as in podman.
bool is_meant(const Json& when, const spec::RuntimeConfig& config, bool binds) {
  bool any = false;
  if (const auto always = when.find("always"); always != when.end()) {
    any = true;
    if (!always->get<bool>()) return false;
  }
  if (const auto wanted = when.find("hasBindMounts"); wanted != when.end()) {
    any = true;
    if (wanted->get<bool>() != binds) return false;
  }
  if (const auto commands = when.find("commands"); commands != when.end()) {
    any = true;
    const std::string command =
        config.process && !config.process->args.empty() ? config.process->args.front() : std::string();
    bool one = false;
    for (const auto& pattern : *commands) one = one || Pattern(pattern.get<std::string>()).found_in(command);
    if (!one) return false;
  }
  if (const auto annotations = when.find("annotations"); annotations != when.end()) {
    any = true;
    for (const auto& [key_pattern, value_pattern] : annotations->items()) {
      bool one = false;
      for (const auto& [key, value] : config.annotations)
        one = one || (Pattern(key_pattern).found_in(key) && Pattern(value_pattern.get<std::string>()).found_in(value));
      if (!one) return false;
    }
  }
  if (!any) throw_error("\"when\" has no condition");
  return true;
}

void add_hook(const Json& file, const spec::RuntimeConfig& config, bool binds, spec::Hooks& hooks) {
  if (file.at("version") != "1.0.0") throw_error("version {} is not 1.0.0", file.at("version").dump());
  if (!is_meant(file.at("when"), config, binds)) return;
  const Json& from = file.at("hook");
  spec::Hook hook;
  hook.path = from.at("path").get<std::string>();
  if (hook.path.empty() || hook.path.front() != '/')
    throw_error("hook.path {} is not absolute", kelp::quoted(hook.path));
  hook.args = from.value("args", store::Strings{});
  hook.env = from.value("env", store::Strings{});
  if (const auto timeout = from.find("timeout"); timeout != from.end()) hook.timeout = timeout->get<int>();
  for (const auto& stage : file.at("stages")) hooks_of_stage(hooks, stage.get<std::string>()).push_back(hook);
}

}  // namespace

std::vector<spec::Hook>& hooks_of_stage(spec::Hooks& hooks, const std::string& name) {
  if (name == "prestart") return hooks.prestart;
  if (name == "createRuntime") return hooks.create_runtime;
  if (name == "createContainer") return hooks.create_container;
  if (name == "startContainer") return hooks.start_container;
  if (name == "poststart") return hooks.poststart;
  if (name == "poststop") return hooks.poststop;
  throw_error("unknown stage {}", kelp::quoted(name));
}

spec::Hooks read_hooks(const store::Strings& directories, const spec::RuntimeConfig& config, bool binds) {
  spec::Hooks hooks;
  std::map<std::string, std::string> files;
  for (const auto& directory : directories) find_files(directory, files);
  for (const auto& [name, path] : files) {
    const auto text = sys::read_small_file(path, 1U << 20U);
    if (!text) throw_errno("hook {}", path);
    try {
      add_hook(Json::parse(*text), config, binds, hooks);
    } catch (const std::exception& error) {  // of JSON, or our own
      throw_usage("hook {}: {}", path, printable(error.what()));
    }
  }
  return hooks;
}

}  // namespace kelp::engine
