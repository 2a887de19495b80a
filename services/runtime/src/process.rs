//! What `/proc` says of this process, as text for Prometheus, under the names that its client libraries agree on
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).

use std::fmt::Write;

/// Ticks a second of the times in `/proc`: `USER_HZ`, which Linux fixes at 100 on every architecture that we run on,
/// whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is known of this process now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Process {
    /// Memory that it holds in RAM, bytes.
    pub resident_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Time on a CPU, in user and kernel mode, of all its threads, seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The limit of open file descriptors; `None` if there is none.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it was started, seconds since the Unix epoch.
    pub start_seconds: f64,
}

impl Process {
    /// Reads it. `None` where there is no `/proc`.
    pub fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        // The directory's own handle is among those counted.
        let open_fds = (std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
        Self::parse(&status, &stat, &boot, &limits, open_fds)
    }

    /// Reads [`Self::cpu_seconds`] alone, which costs much less.
    pub fn read_cpu_seconds() -> Option<f64> {
        cpu_seconds(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(status: &str, stat: &str, boot: &str, limits: &str, open_fds: u64) -> Option<Self> {
        let kib = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|n| n * 1024)
        };
        let booted = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse::<u64>().ok()?;
        let max_fds = limits
            .lines()
            .find_map(|l| l.strip_prefix("Max open files"))
            .and_then(|l| l.split_whitespace().next()?.parse().ok());
        Some(Self {
            resident_bytes: kib("VmRSS:")?,
            virtual_bytes: kib("VmSize:")?,
            cpu_seconds: cpu_seconds(stat)?,
            open_fds,
            max_fds,
            threads: field(stat, 20)?,
            start_seconds: booted as f64 + field(stat, 22)? as f64 / TICKS_PER_SECOND,
        })
    }

    /// Appends it in Prometheus' text form.
    pub fn write(&self, out: &mut String) {
        let mut one = |name: &str, kind: &str, help: &str, value: f64| {
            let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        };
        one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", self.resident_bytes as f64);
        one("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", self.virtual_bytes as f64);
        let help = "Total user and system CPU time spent in seconds.";
        one("process_cpu_seconds_total", "counter", help, self.cpu_seconds);
        one("process_open_fds", "gauge", "Number of open file descriptors.", self.open_fds as f64);
        if let Some(max) = self.max_fds {
            one("process_max_fds", "gauge", "Maximum number of open file descriptors.", max as f64);
        }
        one("process_threads", "gauge", "Number of threads.", self.threads as f64);
        let help = "Start time of the process since the Unix epoch in seconds.";
        one("process_start_time_seconds", "gauge", help, self.start_seconds);
    }
}

/// A field of `/proc/self/stat`, by its number in proc_pid_stat(5).
fn field(stat: &str, number: usize) -> Option<u64> {
    // The second field is the program's name, which may hold spaces and brackets: count from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 9 0 5000 1 1 1";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 524288    files\n";
        let process = Process::parse(status, stat, "cpu 1\nbtime 1000\n", limits, 5).expect("parses");
        let expected = Process {
            resident_bytes: 1 << 20,
            virtual_bytes: 2 << 20,
            cpu_seconds: 4.0,
            open_fds: 5,
            max_fds: Some(1024),
            threads: 9,
            start_seconds: 1050.0,
        };
        assert_eq!(process, expected);
        let mut text = String::new();
        process.write(&mut text);
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 4\n"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::read().expect("Linux has /proc");
        assert!(process.resident_bytes > 100_000 && process.open_fds > 0 && process.threads > 0);
    }
}
