/// kelp-oci: an OCI runtime with runc's command line. Bundle in, container out.
///
///     create.cc           THE PARENT'S STORY: state, cgroup, clone, records, hooks
///     init.cc             THE CHILD'S STORY: from clone to exec
///     exec.cc             another process in a running container
///     link.h              what the two say to each other
///     plan_*.h            what is to be done, as values
///
/// The seven steps of ARCHITECTURE.md:
///
///     1  bundle           bundle.cc (spec/runtime_config.cc parses, spec/validate.cc checks)
///
///     2  namespaces       plan_namespaces.cc, first_process.cc; net_devices.cc
///
///     3  cgroup           the layer cgroup, by make_group() of create.cc
///
///     4  root filesystem  rootfs.cc, attach_root(): the bundle's own
///
///     5  inside of it     plan_mounts.cc, rootfs.cc, devices.cc, terminal.cc; node_settings.cc
///
///     6  privileges       privileges.cc, seccomp.cc (seccomp_cache.cc, bpf_ranges.cc)
///
///     7  exec             payload.cc; start_gate.cc between create and start; hooks.cc
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/text.h"
#include "kelp_config.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/container.h"
#include "runtime/sealed_self.h"

using namespace kelp;
using namespace kelp::runtime;

namespace {

constexpr std::array kGlobalOptions = {
    OptionSpec{"root", 0, "DIR", "directory of the containers' state"},
    OptionSpec{"log", 0, "FILE", "append records there as well"},
    OptionSpec{"log-format", 0, "text|json", "format of that file"},
    OptionSpec{"log-level", 0, "LEVEL", "debug, info, warning or error"},
    OptionSpec{"debug", 0, nullptr, "as --log-level debug"},
    OptionSpec{"systemd-cgroup", 0, nullptr, "let systemd make cgroups (cgroupsPath slice:prefix:name)"},
    OptionSpec{"cgroup-manager", 0, "NAME", "cgroupfs, systemd or disabled"},
    OptionSpec{"criu", 0, "PROGRAM", "criu for checkpoint and restore (default: the one in PATH)"},
    OptionSpec{"rootless", 0, "auto|true|false",
               "give an ordinary user's container a user namespace when it asks for none"},
    OptionSpec{"version", 'v', nullptr, "print the version"},
    OptionSpec{"help", 'h', nullptr, "print this help"},
};

const Command* const kCommands[] = {&kCreate, &kStart, &kRun,      &kState,      &kKill,   &kDelete,
                                    &kExec,   &kList,  &kPs,       &kPause,      &kResume, &kUpdate,
                                    &kEvents, &kSpec,  &kFeatures, &kCheckpoint, &kRestore};

std::string describe(std::span<const OptionSpec> options) {
  std::string out;
  for (const OptionSpec& option : options) {
    if (option.hidden) continue;
    std::string left = option.letter != 0 ? fmt::format("-{}, ", option.letter) : "    ";
    left += fmt::format("--{}{}{}", option.name, option.value != nullptr ? " " : "",
                        option.value != nullptr ? option.value : "");
    out += fmt::format("  {:<34} {}\n", left, option.help);
  }
  return out;
}

std::string help() {
  std::string out = "usage: kelp-oci [OPTION…] COMMAND [OPTION…] [WORD…]\n\ncommands:\n";
  for (const Command* command : kCommands) out += fmt::format("  {:<10} {}\n", command->name, command->help);
  return out + "\noptions:\n" + describe(kGlobalOptions);
}

std::string help(const Command& command) {
  std::string out = fmt::format("usage: kelp-oci {} [OPTION…] {}\n\n{}\n", command.name, command.usage, command.help);
  if (!command.options.empty()) out += "\noptions:\n" + describe(command.options);
  return out;
}

const Command& find_command(const std::string& name) {
  std::vector<std::string> names;
  for (const Command* command : kCommands) {
    if (name == command->name) return *command;
    names.emplace_back(command->name);
  }
  const std::string near = nearest(name, names);
  UsageError error(fmt::format("unknown command {}", quoted(name)));
  error.with_hint(near.empty() ? "see kelp-oci --help" : fmt::format("did you mean {}?", near));
  throw error;
}

/// A link in place of the log, left there by whoever else can write to the directory (a container's user, through a
/// volume), would make us write into a file of his choice. Those of the kernel lead to descriptors of our own.
Fd open_log(const std::string& path) {
  const bool descriptor = starts_with(path, "/proc/self/fd/") || starts_with(path, "/dev/fd/") ||
                          path == "/dev/stdout" || path == "/dev/stderr";
  const int follow = descriptor ? 0 : O_NOFOLLOW;
  Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC | follow, 0644));
  if (!file && errno == ELOOP) throw_error("open the log {}: it is a symbolic link", path);
  if (!file) throw_errno("open the log {}", path);
  return file;
}

/// Records go to stderr, or to --log; the error that ends the program always goes to stderr, too.
void set_up_log(const Options& options, Fd& file) {
  log::Sink sink;
  sink.program = "kelp-oci";
  if (options.has("log-level")) sink.level = log::parse_level(options.value("log-level"));
  if (options.flag("debug")) sink.level = log::Level::debug;
  if (options.has("log")) {
    file = open_log(options.value("log"));
    // Low numbers belong to descriptors that the caller preserves.
    Fd high(::fcntl(file.get(), F_DUPFD_CLOEXEC, 100));
    if (high) file = std::move(high);
    sink.fd = file.get();
  }
  const std::string format = options.value("log-format");
  if (format == "json") {
    sink.format = log::Format::json;
  } else if (!format.empty() && format != "text") {
    throw_usage("option --log-format: {} is neither text nor json", quoted(format));
  }
  log::set_sink(sink);
}

GlobalOptions global_options(const Options& options) {
  GlobalOptions global;
  global.root = options.has("root") ? options.value("root") : default_root();
  global.systemd_cgroup = options.flag("systemd-cgroup");
  const std::string manager = options.value("cgroup-manager");
  if (manager == "systemd") {
    global.systemd_cgroup = true;
  } else if (manager == "disabled") {
    global.no_cgroup = true;
  } else if (!manager.empty() && manager != "cgroupfs") {
    throw_usage("option --cgroup-manager: {} is none of cgroupfs, systemd, disabled", quoted(manager));
  }
  global.criu = options.value("criu");
  const std::string rootless = options.has("rootless") ? options.value("rootless") : "auto";
  if (rootless != "auto") {
    const auto wanted = to_bool(rootless);
    if (!wanted) throw_usage("option --rootless: {} is none of auto, true, false", quoted(rootless));
    global.rootless = *wanted;
  }
  return global;
}

/// Who reads our exit status when we fail.
struct Caller {
  bool execs = false;
  bool is_kelp = false;
};

/// runc's: 255 of exec, whose other statuses are the program's, and 1. kelp reads podman's, which tell a command that
/// was not found.
int failure_status(const Caller& caller, int status) {
  if (caller.is_kelp) return status;
  return caller.execs ? 255 : 1;
}

int dispatch(char** argv, const Options& options, Caller& caller) {
  if (options.flag("version")) {
    print("kelp-oci version " KELP_VERSION "\nspec: 1.3.0\n");
    return 0;
  }
  if (options.flag("help") || options.words().empty() || options.words()[0] == "help") {
    print(help());
    return options.flag("help") || !options.words().empty() ? 0 : failure_status(caller, kExitFailure);
  }
  const Command& command = find_command(options.words()[0]);
  const std::vector<std::string> rest(options.words().begin() + 1, options.words().end());
  for (const std::string& word : rest) {
    if (word == "--help" || word == "-h") {
      print(help(command));
      return 0;
    }
    if (command.words_are_payload && !starts_with(word, "-")) break;
  }
  // Only these let a container's processes come near our own program.
  if (&command == &kCreate || &command == &kRun || &command == &kExec) seal_self(argv);
  Options own;
  own.parse(command.options, rest, 0, command.words_are_payload);
  const size_t count = own.words().size();
  if (count < command.min_words || count > command.max_words)
    throw_usage("usage: kelp-oci {} [OPTION…] {}", command.name, command.usage);
  // Mistakes of the command line end with 1 in runc, those of exec, too. What kelp alone does, of every version: it
  // holds containers at their start, hands the process over by descriptor, and has health checks in a file of its own.
  caller.execs = &command == &kExec;
  const std::string process = caller.execs ? own.value("process") : "";
  caller.is_kelp =
      own.has("hold-fd") || starts_with(process, "/proc/self/fd/") || ends_with(process, "/health-process.json");
  const GlobalOptions global = global_options(options);
  return command.run({global, own, own.words()});
}

void report(const Error& error, bool log_is_file) {
  log::divert(nullptr, nullptr);
  log::failure(error.message(), error.hint());
  if (!log_is_file) return;
  log::set_sink({.fd = STDERR_FILENO, .level = log::Level::warn, .format = log::Format::text, .program = "kelp-oci"});
  log::failure(error.message(), error.hint());
}

}  // namespace

int main(int argc, char** argv) {
  Fd log_file;
  Caller caller;
  try {
    ::prctl(PR_SET_NAME, "kelp-oci");
    log::set_sink({.program = "kelp-oci"});
    Options options;
    options.parse(kGlobalOptions, std::vector<std::string>(argv + 1, argv + argc), 0, true);
    set_up_log(options, log_file);
    return dispatch(argv, options, caller);
  } catch (const Error& error) {
    report(error, log_file.valid());
    return failure_status(caller, error.exit_code());
  } catch (const std::exception& error) {
    report(Error(error.what()), log_file.valid());
    return failure_status(caller, kExitFailure);
  }
}
