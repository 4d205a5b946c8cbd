"""perl: hashes, sorts, regular expressions, growing strings, interpreter threads, forks that answer by
pipes."""
PACKAGES = ("perl",)
NEEDS = ("perl",)
PROVEN = ("perl",)

SCRIPT = r"""
use strict; use warnings; use threads; use Digest::MD5 qw(md5_hex); use Storable qw(dclone freeze thaw);
$| = 1;
my %count;
for my $i (1 .. 80_000) { $count{"word" . ($i * 7919 % 20011)} += $i % 13; }
my @order = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "hash ", scalar(@order), " ", join(",", @order[0 .. 4]), "\n";
print md5_hex(join "\n", map { "$_ $count{$_}" } @order), "\n";

my $text = '';
$text .= "item $_: " . ('z' x ($_ % 40)) . "\n" for 1 .. 20_000;
(my $changed = $text) =~ s/(\d+)(?=: z{3,7}\n)/<$1>/g;
print "regex ", length($changed), " ", md5_hex($changed), " ", scalar(() = $changed =~ /<\d*7>/g), "\n";
my @fields = map { [split /[: ]+/] } split /\n/, $text;
print "split ", scalar(@fields), " ", $fields[-1][1], "\n";

my %tree;
for my $i (1 .. 15_000) {
    my $at = \%tree;
    $at = $at->{substr md5_hex($i), $_, 1} //= {} for 0 .. 3;
    push @{$at->{leaf}}, $i;
}
my $copy = thaw(freeze(dclone(\%tree)));
%tree = ();
sub leaves {
    my $at = shift;
    my $n = 0;
    $n += $_ eq 'leaf' ? @{$at->{$_}} : leaves($at->{$_}) for keys %$at;
    return $n;
}
print "tree ", leaves($copy), "\n";

my @threads = map { my $n = $_; threads->create(sub {
    my %own; $own{$_ * $n} = 'v' x ($_ % 100) for 1 .. 5000;
    return md5_hex(join ',', map { "$_=$own{$_}" } sort { $a <=> $b } keys %own);
}) } 1 .. 6;
print "thread ", $_->join, "\n" for @threads;

for my $round (1 .. 2) {
    my @readers;
    for my $n (1 .. 6) {
        pipe(my $reader, my $writer) or die;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            close $reader;
            $count{"child$n"} = $n; delete $count{$order[$_]} for 0 .. 2000;
            my @list = map { "$_$n" x 3 } 1 .. 3000;
            print $writer md5_hex(join '', reverse @list), " ", scalar(keys %count), "\n";
            close $writer;
            exit $n;
        }
        push @readers, [$pid, $reader];
        close $writer;
    }
    for (@readers) {
        my ($pid, $reader) = @$_;
        print "child ", <$reader>;
        waitpid $pid, 0;
        print "ended ", $? >> 8, " ", $? & 127, "\n";
    }
}
my @matrix = map { my $r = $_; [map { $r * $_ % 17 } 1 .. 300] } 1 .. 300;
my $sum = 0; for my $r (@matrix) { $sum += $_ for map { $_ * 2 } grep { $_ & 1 } @$r }
print "matrix $sum\n", `echo shell`, scalar(`seq 1 20000 | wc -l`);
"""


def work(run):
    return run.call("perl", run.write("script.pl", SCRIPT), env={"PERL_HASH_SEED": "0"})
