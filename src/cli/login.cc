#include <termios.h>
#include <unistd.h>

#include <iterator>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/registry_options.h"
#include "engine/registries.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

constexpr size_t kMaxPassword = 64 << 10;

struct LoginCommand {
  engine::LoginOptions login;
  std::optional<std::string> password;
  bool password_stdin = false, get_login = false, verbose = false, all = false;
};

/// One line from the terminal, without its end; the echo is off for secrets.
std::string ask(const char* question, bool secret) {
  termios before{};
  const bool hide = secret && ::tcgetattr(STDIN_FILENO, &before) == 0;
  if (hide) {
    termios quiet = before;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);  // before the question: what is typed at once must not show
  }
  if (::write(STDERR_FILENO, question, std::string_view(question).size()) < 0) throw_errno("ask for it");
  std::string line;
  char c = 0;
  while (line.size() < kMaxPassword && ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n') line += c;
  if (hide) {
    ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    if (::write(STDERR_FILENO, "\n", 1) < 0) throw_errno("end the line");
  }
  return line;
}

std::string without_line_end(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

int login(Invocation& invocation, LoginCommand& values) {
  const std::string registry = invocation.arguments.empty() ? "docker.io" : invocation.arguments[0];
  engine::LoginOptions& options = values.login;
  if (values.get_login) {
    print_line(engine::logged_in_user(invocation.context, registry, options));
    return 0;
  }
  if (values.password_stdin && values.password) throw_usage("--password and --password-stdin exclude each other");
  if (values.password_stdin && options.user.empty()) throw_usage("--password-stdin needs --username");
  if (values.password_stdin) {
    options.password = without_line_end(sys::read_rest(STDIN_FILENO, "standard input", kMaxPassword));
    if (options.password->empty()) throw_usage("--password-stdin: standard input is empty");
  } else if (values.password) {
    log::warn("a password on the command line can be seen by others; --password-stdin hides it");
    options.password = values.password;
  }
  engine::LoginResult result;
  if (!options.password) {
    result = engine::login(invocation.context, registry, options);
    if (result.kept && !result.needed) {
      print_line("Authenticating with existing credentials for " + registry);
      print_line("Existing credentials are valid. Already logged in to " + registry);
      return 0;
    }
    if (!stdin_is_terminal()) {
      throw UsageError("user name and password are needed, and there is no terminal to ask on")
          .with_hint("kelp login --username USER --password-stdin " + registry);
    }
    if (options.user.empty()) {
      options.user = ask((result.user.empty() ? "Username: " : "Username (" + result.user + "): ").c_str(), false);
      if (options.user.empty()) options.user = result.user;
    }
    options.password = ask("Password: ", true);
  }
  if (options.user.empty()) throw_usage("--username is missing");
  if (options.password->empty()) throw_usage("an empty password is none");
  result = engine::login(invocation.context, registry, options);
  if (values.verbose) print_line(fmt::format("logged in to {} as {}", registry, printable(result.user)));
  print_line("Login Succeeded!");
  return 0;
}

}  // namespace

Action define_login(OptionSet& options) {
  auto values = std::make_shared<LoginCommand>();
  options.arguments("[REGISTRY]", 0, 1, Complete::registry);
  add_access_options(options, values->login.access, {.creds = false});
  options.text("compat-auth-file", values->login.compat_auth_file, "FILE", "keep them in this file of Docker's form")
      .complete(Complete::file);
  options.flag("get-login", values->get_login, "print who is logged in");
  options.text("username,u", values->login.user, "USER", "name of the user");
  options.text("password,p", values->password, "PASSWORD", "the password; others on this host can see it");
  options.flag("password-stdin", values->password_stdin, "read the password from standard input");
  options.flag("verbose,v", values->verbose, "say who was logged in");
  return [values](Invocation& invocation) { return login(invocation, *values); };
}

Action define_logout(OptionSet& options) {
  auto values = std::make_shared<LoginCommand>();
  options.arguments("[REGISTRY]", 0, 1, Complete::registry);
  options.text("authfile", values->login.access.authfile, "FILE", "credentials of registries").complete(Complete::file);
  options.text("compat-auth-file", values->login.compat_auth_file, "FILE", "a file of Docker's form")
      .complete(Complete::file);
  options.flag("all,a", values->all, "from all registries");
  return [values](Invocation& invocation) {
    if (values->all && !invocation.arguments.empty()) throw_usage("--all and a registry exclude each other");
    const std::string registry = invocation.arguments.empty() ? "docker.io" : invocation.arguments[0];
    engine::logout(invocation.context, values->all ? "" : registry, values->login);
    print_line(values->all ? "Removed login credentials for all registries"
                           : "Removed login credentials for " + registry);
    return 0;
  };
}

}  // namespace kelp::cli
