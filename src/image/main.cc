// kelp-image: everything that touches registries and archives. One verb per run; the result is one JSON document on
// stdout, progress goes to --progress-fd, an error is one line on stderr (and a hint) with exit status 125.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/progress.h"
#include "image/unpack.h"
#include "image/verbs.h"
#include "store/layers.h"

using namespace kelp;

namespace {

constexpr image::Verb kVerbs[] = {
    {"pull", "platform authfile creds cert-dir tls-verify policy retry retry-delay", "all-tags no-unpack artifacts",
     &image::verb_pull, true},
    {"push", "authfile creds cert-dir tls-verify retry retry-delay format compression-format compression-level",
     "force-compression all", &image::verb_push, false},
    {"login", "authfile compat-auth-file cert-dir tls-verify username", "get-login", &image::verb_login, false},
    {"logout", "authfile compat-auth-file", "all", &image::verb_logout, false},
    {"search", "authfile creds cert-dir tls-verify limit", "list-tags", &image::verb_search, false},
    {"manifest", "authfile creds cert-dir tls-verify annotation os arch variant", "all amend", &image::verb_manifest,
     false},
    {"store-verify", "authfile creds cert-dir tls-verify", "repair blobs", &image::verb_store_verify, true},
    {"load", "i reference transport", "no-unpack", &image::verb_load, true},
    {"take-over", "store", "no-unpack", &image::verb_take_over, true},
    {"unpack", "", "", &image::verb_unpack, true},
    {"give-up-blobs", "", "", &image::verb_give_up_blobs, false},
    {"import", "change message os arch variant", "", &image::verb_import, true},
    {"pack", "root-link owners", "overlay", &image::verb_pack, false},
    {"ping", "cert-dir tls-verify", "", &image::verb_ping, false},
    {"registries", "", "no-unpack", &image::verb_registries, false},
    {"commit", "upper root-fd base owners config created created-by author message format name", "squash",
     &image::verb_commit, false},
    {"untar", "root-fd uid gid", "", &image::verb_untar, false},
    {"save", "format o compression-format compression-level", "compress multi-image-archive", &image::verb_save, false},
};

const image::Verb& find_verb(const std::string& name) {
  std::vector<std::string> names;
  for (const image::Verb& verb : kVerbs) {
    if (name == verb.name) return verb;
    names.emplace_back(verb.name);
  }
  throw_usage("unknown verb {} (there are: {})", quoted(name), join(names, ", "));
}

/// "inside:outside:count,…"
sys::IdRanges parse_ranges(const std::string& text, const char* option) {
  sys::IdRanges ranges;
  for (const std::string& part : split(text, ',')) {
    const std::vector<std::string> fields = split(part, ':');
    if (fields.size() != 3) throw_usage("--{}: {} is not inside:outside:count", option, quoted(part));
    std::uint32_t numbers[3];
    for (size_t i = 0; i < 3; ++i) {
      const auto number = to_int(fields[i], 0, UINT32_MAX);
      if (!number) throw_usage("--{}: {} is not inside:outside:count", option, quoted(part));
      numbers[i] = static_cast<std::uint32_t>(*number);
    }
    ranges.push_back({numbers[0], numbers[1], numbers[2]});
  }
  return ranges;
}

store::IdMapping parse_map(const image::Arguments& arguments) {
  const std::string key = arguments.value("map-key").value_or("full");
  if (key == "full") return store::IdMapping::full();
  if (key == "single") return store::IdMapping::single();
  store::IdMapping map = store::IdMapping::ranges(parse_ranges(arguments.value("map-uids").value_or(""), "map-uids"),
                                                  parse_ranges(arguments.value("map-gids").value_or(""), "map-gids"));
  if (map.key != key) throw_usage("--map-key: {} does not belong to the ranges given ({})", quoted(key), map.key);
  return map;
}

int progress_fd(const image::Arguments& arguments) {
  const auto text = arguments.value("progress-fd");
  if (!text) return -1;
  const auto number = to_int(*text, 0, INT32_MAX);
  if (!number) throw_usage("--progress-fd: {} is not a descriptor", quoted(*text));
  return static_cast<int>(*number);
}

void print(std::string text) {
  if (text.empty()) return;
  text += '\n';
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw_errno("write the result");
  }
}

int run(int argc, char** argv) {
  if (argc < 2) throw_usage("which verb?");
  const image::Verb& verb = find_verb(argv[1]);
  const image::Arguments arguments = image::parse_arguments({argv + 2, argv + argc}, verb);
  store::Layout layout;
  layout.data = arguments.value("data").value_or("");
  layout.cache = arguments.value("cache").value_or("");
  if (layout.data.empty() || layout.cache.empty()) throw_usage("{}: --data and --cache are needed", verb.name);
  image::Progress progress(progress_fd(arguments));
  const store::IdMapping map = parse_map(arguments);
  image::VerbRequest request{layout, arguments, progress, map};
  print(verb.run(request));
  const bool give_up = arguments.flag("give-up-blobs");
  if ((verb.unpacks || give_up) && !arguments.flag("no-unpack")) {
    image::sync_layers_in_background(layout, give_up);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  log::set_sink({.program = "kelp-image"});
  std::signal(SIGPIPE, SIG_IGN);  // a reader that goes away must not end a download half-way through a publish
  try {
    if (const char* level = std::getenv("KELP_LOG_LEVEL")) {
      log::set_sink({.level = log::parse_level(level), .program = "kelp-image"});
    }
    return run(argc, argv);
  } catch (const Error& error) {
    std::fputs(fmt::format("kelp-image: {}\n", error.message()).c_str(), stderr);
    if (!error.hint().empty()) std::fputs(fmt::format("hint: {}\n", error.hint()).c_str(), stderr);
    return error.exit_code();
  } catch (const std::exception& error) {
    std::fputs(fmt::format("kelp-image: {}\n", error.what()).c_str(), stderr);
    return kExitFailure;
  }
}
