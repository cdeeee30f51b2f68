//! The terminal of a program that draws: raw, on its other screen, and given back at the end.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::keys::{self, Key};

/// Somebody asked the program to end.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_signal: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

/// The terminal, until dropped.
pub(super) struct Terminal {
    before: libc::termios,
    shown: Vec<String>,
    size: (usize, usize),
    pressed: VecDeque<Key>,
}

impl Terminal {
    /// Takes the terminal of standard input and output.
    pub(super) fn open() -> io::Result<Self> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        if !stdin.is_terminal() || !stdout.is_terminal() {
            return Err(io::Error::other("standard input or output is none"));
        }
        // SAFETY: all octets zero is a value of this type, and the call below fills it.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `before` is what the call writes.
        if unsafe { libc::tcgetattr(stdin.as_raw_fd(), &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut raw = before;
        // SAFETY: the call changes the value only.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        // SAFETY: the descriptor is open and `raw` is a terminal's own setting, changed.
        if unsafe { libc::tcsetattr(stdin.as_raw_fd(), libc::TCSANOW, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            // SAFETY: the handler stores one flag, which is safe at any moment.
            unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
        }
        let terminal = Self { before, shown: Vec::new(), size: (0, 0), pressed: VecDeque::new() };
        // The other screen, without the cursor.
        write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open and `size` is what this request writes.
        let result =
            unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        match result == 0 && size.ws_col > 0 && size.ws_row > 0 {
            true => (usize::from(size.ws_col), usize::from(size.ws_row)),
            false => (80, 24),
        }
    }

    /// Shows a frame; only lines that differ from the last one are written.
    pub(super) fn show(&mut self, frame: &[String]) -> io::Result<()> {
        let size = self.size();
        let mut text = String::new();
        if size != self.size {
            self.size = size;
            self.shown.clear();
            text.push_str("\x1b[2J");
        }
        for line in 0..size.1 {
            let wanted = frame.get(line).map_or("", String::as_str);
            if self.shown.get(line).map(String::as_str) != Some(wanted) {
                text.push_str(&format!("\x1b[{};1H{wanted}\x1b[0m\x1b[K", line + 1));
            }
        }
        self.shown = frame.to_vec();
        self.shown.resize(size.1, String::new());
        write_all(text.as_bytes())
    }

    /// The next key, or none within the time.
    pub(super) fn key(&mut self, wait: Duration) -> io::Result<Option<Key>> {
        if ENDED.load(Ordering::Relaxed) {
            return Ok(Some(Key::End));
        }
        if let Some(key) = self.pressed.pop_front() {
            return Ok(Some(key));
        }
        let stdin = io::stdin();
        let mut waiting = libc::pollfd { fd: stdin.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, which the call reads and writes.
        match unsafe { libc::poll(&raw mut waiting, 1, milliseconds) } {
            0 => return Ok(None),
            // A signal: whether it ends the program is asked at the next turn.
            -1 => return Ok(None),
            _ => {}
        }
        let mut octets = [0; 256];
        // Not by the buffer of standard input, of which `poll` knows nothing.
        // SAFETY: the buffer is as long as it is said to be.
        let read = unsafe { libc::read(stdin.as_raw_fd(), octets.as_mut_ptr().cast(), 256) };
        match usize::try_from(read) {
            Ok(0) => return Ok(Some(Key::End)),
            Ok(read) => self.pressed.extend(keys::parse(&octets[..read])),
            Err(_) => return Ok(None),
        }
        Ok(self.pressed.pop_front())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = write_all(b"\x1b[0m\x1b[?25h\x1b[?1049l");
        // SAFETY: the descriptor is open, and these were its own settings.
        unsafe {
            libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSANOW, &raw const self.before);
        }
    }
}

fn write_all(octets: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(octets)?;
    stdout.flush()
}
