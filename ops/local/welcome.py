"""What a newcomer reads when everything is ready."""

from pathlib import Path

from ops.local.launch_settings import LaunchSettings

READY = """\
CozyEngine is ready: {url}
"""

KEYS = """\
Development keys: sk-cozy-dev (a user), sk-cozy-admin (an admin)
"""

TRY = """\
Say something, and watch the reply stream:

  curl -N {url}/v1/chat/completions \\
    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
    -d '{{"model": "cozy/default", "stream": true,
         "messages": [{{"role": "user", "content": "Hello! What can you do?"}}]}}'
"""

STAND_IN = """\
No model is connected: a scripted stand-in answers. To connect a real one, stop this (Ctrl-C) and start with one of

  OPENAI_API_KEY=sk-... make run
  OPENAI_BASE_URL=http://127.0.0.1:11434/v1 make run     (Ollama)
  OPENAI_BASE_URL=http://127.0.0.1:1234/v1 make run      (LM Studio)
  OPENAI_BASE_URL=http://gpu-machine:8000/v1 make run    (vLLM, or any OpenAI-compatible server)
"""

WHERE = """\
Logs: {logs}/<name>.log    Processes: {run_file}    Stop: Ctrl-C
"""


def welcome(settings: LaunchSettings) -> str:
    """The address, the keys, a first request, and (without a model) how to connect one."""
    development = settings.app_env == "development"
    parts = [
        READY,
        *([KEYS] if development else []),
        TRY,
        *([] if settings.has_model else [STAND_IN]),
        WHERE,
    ]
    return "\n".join(parts).format(
        url=f"http://127.0.0.1:{settings.port}",
        key="sk-cozy-dev" if development else "$YOUR_KEY",
        logs=_shown(settings.data_folder / "logs"),
        run_file=_shown(settings.data_folder / "run.json"),
    )


def _shown(path: Path) -> str:
    """As short as it can be said from where we are."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
