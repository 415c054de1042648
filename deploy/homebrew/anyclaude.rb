# Builds anyclaude from a clone of the project; no release is published. Homebrew takes formulae from taps only:
#
#   brew tap-new me/local
#   cp deploy/homebrew/anyclaude.rb "$(brew --repository me/local)/Formula/"
#   HOMEBREW_ANYCLAUDE_SOURCE=$PWD brew install --HEAD me/local/anyclaude
class Anyclaude < Formula
  desc "Claude Code and other API clients on a local MLX model"
  license "Apache-2.0"
  head "file://#{ENV.fetch("HOMEBREW_ANYCLAUDE_SOURCE", Dir.pwd)}", using: :git, branch: "main"

  depends_on "python@3.13"

  def install
    system Formula["python@3.13"].opt_bin/"python3.13", "-m", "venv", libexec
    system libexec/"bin/pip", "install", "--constraint", "constraints.txt", "."
    bin.install_symlink libexec/"bin/anyclaude"
  end

  service do
    run [opt_bin/"anyclaude", "serve"]
    keep_alive crashed: true
    log_path var/"log/anyclaude.log"
    error_log_path var/"log/anyclaude.log"
  end

  test do
    system bin/"anyclaude", "--version"
  end
end
