import resource

from twisted.trial.unittest import SynchronousTestCase

from openems.application.descriptors import raise_limit


class TestDescriptors(SynchronousTestCase):
    def test_up_to_what_is_allowed(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        self.assertEqual(raise_limit(), before[1])
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))
